"""The config as JSON Schema (draft 2020-12), made from the settings classes: editors complete and check it.

It says what one key alone may hold. What several keys must agree on, `train` says. Keys are in the
spelling of the documentation; enumerated values match in any case, as `train` reads them.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from pydantic.json_schema import models_json_schema

from birdsonnx.config.reading import SCHEMA_KEY
from birdsonnx.config.section import Section
from birdsonnx.config.settings import Settings
from birdsonnx.config.transform_list import TRANSFORMS
from birdsonnx.config.wording import any_case

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> Schema:
    """The schema of a whole config file."""
    made = models_json_schema([(Settings, "validation")])[1]["$defs"]
    known = {section.__name__: section for section in _sections(Section)}  # in the order of imports
    sections = {name: known[name] for name in sorted(known.keys() & made.keys())}
    definitions: dict[str, Schema] = {name: _tidied(made[name]) for name in sections}
    definitions["Data"]["properties"]["transforms"] = _transforms()
    for name, section in sections.items():
        _complete(definitions[name], section)
    return {
        "$schema": DRAFT,
        "title": "birdsonnx config",
        "type": "object",
        "properties": {
            SCHEMA_KEY: {"type": "string", "description": "Where editors find this schema."},
            "neural_network": {"$ref": "#/$defs/Settings"},
        },
        "required": ["neural_network"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    for kind in section.__subclasses__():
        yield kind
        yield from _sections(kind)


def _complete(definition: Schema, section: type[Section]) -> None:
    """Say what the fields mean, require `type` of all but the default kind of a section, and add the other
    spellings of keys, of which only one may be given."""
    properties = definition["properties"]
    for name, content in properties.items():
        said = section.model_fields[name].description or "Which of the kinds it is."
        content["description"] = " ".join(said.split())
    if "type" in properties and section is not type(Settings().optimizer):
        definition["required"] = ["type", *definition.get("required", ())]
    spellings: dict[str, list[str]] = {}
    for synonym, name in section.synonyms.items():
        properties[synonym] = {**properties[name], "description": f"The same as `{name}`."}
        spellings.setdefault(name, [name]).append(synonym)
    if spellings:
        pairs = [pair for words in spellings.values() for pair in combinations(words, 2)]
        definition["allOf"] = [{"not": {"required": list(pair)}} for pair in pairs]


def _transforms() -> Schema:
    kinds = [
        {
            "type": "object",
            "properties": {name: {**parameter.schema(), "description": " ".join(str(kind.__doc__).split())}},
            "required": [name],
            "additionalProperties": False,
        }
        for name, (kind, parameter) in TRANSFORMS.items()
    ]
    normalize_once: Schema = {"contains": {"required": ["normalize"]}, "minContains": 0, "maxContains": 1}
    return {"type": "array", "items": {"oneOf": kinds}, **normalize_once}


def _tidied(schema: Any) -> Any:
    """Without pydantic's titles, long defaults and what JSON Schema does not know; enumerated values in any
    case."""
    if isinstance(schema, list):
        return [_tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy: Schema = {}
    for key, content in schema.items():
        if key == "properties":
            tidy[key] = {name: _tidied(property) for name, property in content.items()}
        elif key == "description":
            tidy[key] = " ".join(content.split())
        elif key == "default":
            tidy |= {} if content is None or isinstance(content, dict) else {key: content}
        elif key not in ("title", "discriminator"):
            tidy[key] = _tidied(content)
    values = tidy.get("enum", [tidy.get("const")])
    if all(isinstance(value, str) for value in values):
        rest = {key: content for key, content in tidy.items() if key not in ("const", "enum", "type")}
        return {**rest, **any_case(*values)}
    return tidy
