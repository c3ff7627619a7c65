"""Write the pages of docs/reference/ from the program itself: `make docs`. With --check, only see whether
they are up to date, as `make lint` does.

Commands come from the options that typer reads, config keys from the schema that `birdsonnx schema` prints.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from birdsonnx.cli.app import VERBS, app
from birdsonnx.config.schema import config_schema

PAGES = Path(__file__).resolve().parents[1] / "docs" / "reference"

NOTE = "<!-- Written by `make docs` from the program; change it there. -->"

SHARED = ("json", "debug", "help")
"""Options that every verb has; the page says them once."""

SECTIONS = {
    "neural_network": "Settings",
    "checkpoints": "Checkpoints",
    "data": "Data",
    "optimizer": "",
    "loss": "Loss",
    "birdsonnx": "Own",
}
"""The sections of a config and their definitions in the schema; an optimizer has one for each type."""


COMMANDS = """Every verb has `--json` (one JSON object on stdout, and nothing else there), `--debug` \
(the traceback of an error) and `--help`.

Exit codes: 0 done; 1 done, but some inputs were refused; 2 not done, and one line says what, where, and \
what to do; 128 + the number of a signal that ended it."""

COMPLETION = """`birdsonnx --install-completion` lets bash, zsh, fish and PowerShell complete verbs and \
options with the Tab key; `--show-completion` prints the script instead."""

CONFIG = """One JSON object `neural_network`. Names and enumerated values match in any case. An unknown \
key is refused with its path and the nearest known one, and rmldnn's keys for other tasks by name: \
nothing is ignored. Paths are relative to the working folder. `birdsonnx train --set data.batch_size=32` \
changes one key.

Editors complete and check a config whose key `$schema`, beside `neural_network`, names the file that \
`birdsonnx schema -o birdsonnx.schema.json` writes. `birdsonnx init DATA` and `birdsonnx configs` write \
configs to begin with."""


def commands() -> str:
    """`commands.md`."""
    group: Any = typer.main.get_command(app)
    lines = [NOTE, "# Commands", "", f"{group.help} {COMMANDS}", "", "| verb | what it does |", "|---|---|"]
    verbs = {name: command for name, command in group.commands.items() if not command.hidden}
    for name, command in verbs.items():
        lines.append(f"| [`{name}`](#{name}) | {cell(sentence(command.help))} |")
    lines.append("")
    examples = {function.__name__: example for function, example in VERBS.items()}
    for name, command in verbs.items():
        lines += [f"## {name}", "", *paragraphs(command.help), "```text", usage(name, command), "```", ""]
        lines += [f"Example: `{examples[name]}`", ""]
        rows = list(parameter_rows(command))
        lines += ["| argument or option | meaning |", "|---|---|", *rows, ""] if rows else []
    lines += ["## Shell completion", "", COMPLETION]
    return "\n".join(lines) + "\n"


def usage(name: str, command: Any) -> str:
    words = command.collect_usage_pieces(typer.Context(command))
    return " ".join(["birdsonnx", name, *words])


def parameter_rows(command: Any) -> Iterator[str]:
    """As `--help` shows them."""
    context = typer.Context(command)
    for parameter in command.params:
        record = None if parameter.name in SHARED else parameter.get_help_record(context)
        if record is not None:
            yield f"| `{record[0]}` | {cell(record[1])} |"


def kind_sections(definitions: dict[str, Any], key: str, level: str) -> list[str]:
    """A section for each kind of what has this key: its description and its table."""
    return [
        line
        for kind in kinds(definitions, key)
        for line in (
            f"{level} {kind}",
            "",
            definitions[kind].get("description", ""),
            "",
            *table(definitions, kind, "type"),
        )
    ]


def config() -> str:
    """`config.md`."""
    schema = config_schema()
    definitions = schema["$defs"]
    lines = [NOTE, "# Config", "", CONFIG, ""]
    for section, name in SECTIONS.items():
        lines += [f"## {section}", ""]
        if section == "optimizer":
            lines += [definitions["Settings"]["properties"]["optimizer"]["description"], ""]
            lines += kind_sections(definitions, "learning_rate", "###")
            lines += ["### lr_scheduler", "", "One of these, per epoch:", ""]
            lines += kind_sections(definitions, "verbose", "####")
            continue
        lines += [definitions[name].get("description", ""), "", *table(definitions, name)]
        if section == "data":
            lines += [
                "### transforms",
                "",
                "They act in the order of the list, the random ones in training only.",
                "",
            ]
            lines += ["| transform | meaning |", "|---|---|", *transform_rows(definitions), ""]
    return "\n".join(lines).rstrip() + "\n"


def kinds(definitions: dict[str, Any], key: str) -> list[str]:
    """The definitions that have a `type` and this key: the optimizers, or the schedules."""
    return [name for name, each in definitions.items() if {"type", key} <= each.get("properties", {}).keys()]


def table(definitions: dict[str, Any], name: str, *left_out: str) -> list[str]:
    rows = []
    definition = definitions[name]
    for key, content in definition["properties"].items():
        if key in left_out or ("$ref" in content and name == "Settings"):
            continue
        default = f"`{json_of(content['default'])}`" if "default" in content else ""
        if key in definition.get("required", ()):
            default = "required"
        said = content.get("description", "")
        if key not in ("transforms", "lr_scheduler", "layers") and (values := values_of(content)):
            said += f" One of {values}."
        rows.append(f"| `{key}` | {cell(said)} | {default} |")
    return ["| key | meaning | default |", "|---|---|---|", *rows, ""] if rows else []


def values_of(content: dict[str, Any]) -> str:
    """The enumerated values of a key, which are a pattern that matches in any case."""
    forms = [content, *content.get("anyOf", ())]
    found = [value for form in forms for value in words_of(form)]
    return ", ".join(f"`{value}`" for value in found)


def words_of(form: dict[str, Any]) -> list[str]:
    if "enum" in form:
        return [value for value in form["enum"] if isinstance(value, str)]
    examples = form.get("examples")
    return [value for value in examples if isinstance(value, str)] if isinstance(examples, list) else []


def json_of(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def transform_rows(definitions: dict[str, Any]) -> Iterator[str]:
    for kind in definitions["Data"]["properties"]["transforms"]["items"]["oneOf"]:
        [(name, content)] = kind["properties"].items()
        yield f"| `{name}` | {cell(content['description'])} |"


def cell(text: str) -> str:
    """One line, without what would end a table's cell."""
    pieces = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(piece if code % 2 else piece.replace("<", "&lt;") for code, piece in enumerate(pieces))


def sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join((text or "").split()), maxsplit=1)[0]


def paragraphs(text: str) -> list[str]:
    return [line for part in (text or "").split("\n\n") for line in (cell(part), "")]


def main() -> int:
    pages = {PAGES / "commands.md": commands(), PAGES / "config.md": config()}
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not what the program says; run `make docs`", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.write_text(pages[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
