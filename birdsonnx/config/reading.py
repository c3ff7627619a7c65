"""From JSON text to settings."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from birdsonnx.artifacts.regular_files import IrregularError, read_bytes
from birdsonnx.config.json_text import UnmeantError, decoded
from birdsonnx.config.optimizers import OptimizerSettings
from birdsonnx.config.places import guess
from birdsonnx.config.schedules import ScheduleSettings
from birdsonnx.config.section import kinds_of
from birdsonnx.config.settings import Settings
from birdsonnx.config.wording import nearest, shown
from birdsonnx.errors import ConfigError

LARGEST = 64 * 2**20
"""Bytes of a config, with the layers of a network in it; ResNet50's are 200 KB."""

SCHEMA_KEY = "$schema"
"""A key beside `neural_network`: where editors find what `birdsonnx schema` wrote. It changes nothing."""


def read(path: Path, overrides: Iterable[str] = ()) -> Settings:
    """Read a config file; `overrides` are `data.batch_size=32` assignments inside `neural_network`.

    Raises:
        ConfigError: the file is missing, not JSON, or asks for something birdsonnx does not know.
    """
    return parse(text_of(path), str(path), overrides)


def text_of(path: Path) -> str:
    """The text of a config file. Raises ConfigError."""
    try:
        text = read_bytes(path, LARGEST).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file") from None
    except IrregularError as error:
        if not path.is_dir():
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        inside = f"; do you mean {path / 'config.json'}?" if (path / "config.json").is_file() else ""
        raise ConfigError(f"{path}: this is a folder, and a JSON config is needed{inside}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read as a JSON config ({error})") from None
    return text


def parse(text: str, source: str, overrides: Iterable[str] = ()) -> Settings:
    """Validate the JSON `text`; `source` names it in messages. Raises ConfigError."""
    try:
        return Settings.model_validate(assigned(text, source, overrides))
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_line(error)}") from None


def assigned(text: str, source: str, overrides: Iterable[str]) -> Any:
    """The object `neural_network` of the JSON `text`, after the `overrides`; what is in it may be anything.
    Raises ConfigError."""
    root = _json(text, source)
    if not isinstance(root, dict):
        raise ConfigError(f'{source}: the root must be an object {{"neural_network": {{…}}}}')
    sections = {key.lower(): content for key, content in root.items()}
    if not isinstance(root.get(SCHEMA_KEY, ""), str):
        raise ConfigError(
            f"{source}: {SCHEMA_KEY}: must be the place of a JSON Schema, got {shown(root[SCHEMA_KEY])}"
        )
    extra = [key for key in root if key.lower() != "neural_network" and key != SCHEMA_KEY]
    if "neural_network" not in sections or extra:
        guess = "".join(nearest(key, ["neural_network"]) for key in extra)
        found = f", found {', '.join(map(repr, extra))}" if extra else ""
        raise ConfigError(f"{source}: the root must hold one object 'neural_network'{found}{guess}")
    network = sections["neural_network"]
    for override in overrides:
        assign(network, override)
    return network


def _json(text: str, source: str) -> Any:
    try:
        return _loads(text, source)
    except json.JSONDecodeError as error:
        missing = text.count("{") - text.count("}")
        hint = f"; {missing} closing brace{'s' * (missing > 1)} '}}' missing" if missing > 0 else ""
        raise ConfigError(
            f"{source}: line {error.lineno}, column {error.colno}: {error.msg} (not valid JSON{hint})"
        ) from None


def _loads(text: str, source: str) -> Any:
    """The JSON value. Raises json.JSONDecodeError, and ConfigError for JSON that nobody means."""
    try:
        return decoded(text)
    except UnmeantError as error:
        raise ConfigError(f"{source}: {error}") from None


def assign(network: Any, override: str) -> None:
    """Do in `neural_network` what `data.batch_size=32` says. Raises ConfigError."""
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if keys[0].lower() == "neural_network":
        keys = keys[1:]
    if not equals or not keys or not all(keys):
        raise ConfigError(f"--set {override[:60]}: write KEY=VALUE, for example data.batch_size=32")
    try:
        value = _loads(text, f"--set {path}")
    except json.JSONDecodeError:
        value = text  # a bare word, such as a path
    section = network
    for depth, key in enumerate(keys):
        if not isinstance(section, dict):
            raise ConfigError(f"--set {override}: '{'.'.join(keys[:depth])}' is not an object")
        name = next((existing for existing in section if existing.lower() == key.lower()), key)
        if depth == len(keys) - 1:
            section[name] = value
        else:
            section = section.setdefault(name, {})


def _first_line(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    # A union's location names the class that was tried; only keys and indices say where.
    classes = {*kinds_of(ScheduleSettings), *kinds_of(OptimizerSettings)}
    tried = ("function-", "constrained", "literal", "str", "tuple[")
    parts = ["neural_network"]
    parts += [str(part) for part in first["loc"] if part not in classes and not str(part).startswith(tried)]
    where = ".".join(parts)
    if first["type"] == "unknown_key":
        path = ".".join([*parts[1:], first["ctx"]["key"]])
        return f"{parts[0]}.{path}: {first['msg']}{guess(first['ctx']['key'], path, first['ctx']['known'])}"
    if first["type"] == "refused":
        where = ".".join(filter(None, (where, first["ctx"]["key"])))
        return f"{where}: {first['msg']}"
    if first["type"] == "missing":
        return f"{where}: this key is required"
    return f"{where}: {first['msg']}, got {shown(first['input'])}"
