"""MegaDetector's batch format as JSON Schema, versions 1.3 to 1.6, written from its description
(https://lila.science/megadetector-output-format), and a detector's file to begin with."""

from copy import deepcopy
from typing import Any

import jsonschema

CATEGORIES = {
    "type": "object",
    "propertyNames": {"pattern": r"^\d+$"},
    "additionalProperties": {"type": "string", "minLength": 1},
}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["info", "detection_categories", "images"],
    "properties": {
        "info": {
            "type": "object",
            "required": ["format_version"],
            "properties": {
                "format_version": {"type": "string", "pattern": r"^1\.\d+$"},
                "detector": {"type": "string"},
                "classifier": {"type": "string"},
                "detection_completion_time": {"type": "string"},
                "classification_completion_time": {"type": "string"},
                "detector_metadata": {"type": "object"},
                "classifier_metadata": {"type": "object"},
            },
        },
        "detection_categories": CATEGORIES,
        "classification_categories": CATEGORIES,
        "classification_category_descriptions": CATEGORIES,
        "images": {"type": "array", "items": {"$ref": "#/$defs/image"}},
    },
    "$defs": {
        "image": {
            "type": "object",
            "required": ["file"],
            "properties": {
                "file": {"type": "string", "minLength": 1},
                "failure": {"type": ["string", "null"]},
                "detections": {
                    "oneOf": [
                        {"type": "null"},
                        {"type": "array", "items": {"$ref": "#/$defs/detection"}},
                    ]
                },
                "frame_rate": {"type": "number", "exclusiveMinimum": 0},
                "frames_processed": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            },
            "if": {"required": ["failure"], "properties": {"failure": {"type": "string"}}},
            "then": {"properties": {"detections": {"type": "null"}}},
            "else": {"required": ["detections"], "properties": {"detections": {"type": "array"}}},
            "dependentRequired": {
                "frame_rate": ["frames_processed"],
                "frames_processed": ["frame_rate"],
            },
        },
        "detection": {
            "type": "object",
            "required": ["category", "conf", "bbox"],
            "properties": {
                "category": {"type": "string", "pattern": r"^\d+$"},
                "conf": {"type": "number", "minimum": 0, "maximum": 1},
                "bbox": {
                    "type": "array",
                    "minItems": 4,
                    "maxItems": 4,
                    "items": {"type": "number", "minimum": 0, "maximum": 1},
                },
                "classifications": {
                    "type": "array",
                    "items": {
                        "type": "array",
                        "prefixItems": [
                            {"type": "string", "pattern": r"^\d+$"},
                            {"type": "number", "minimum": 0, "maximum": 1},
                        ],
                        "minItems": 2,
                        "items": False,
                    },
                },
                "frame_number": {"type": "integer", "minimum": 0},
            },
        },
    },
}


def require_valid(content: dict[str, Any]) -> None:
    """Raises where content is not in the format: by its shape, by ids that stand for nothing, by classes that
    do not come the likeliest first."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(content, SCHEMA)
    known = content.get("classification_categories", {})
    for image in content["images"]:
        for detection in image.get("detections") or ():
            assert detection["category"] in content["detection_categories"]
            assert isinstance(detection["conf"], float)
            listed = detection.get("classifications", [])
            assert {each for each, _ in listed} <= set(known)
            assert [value for _, value in listed] == sorted((value for _, value in listed), reverse=True)


def detected(**boxes: list[list[float]]) -> dict[str, Any]:
    """A detector's file: of each image its boxes, each surely an animal."""
    return {
        "images": [
            {"file": file, "detections": [{"category": "1", "conf": 0.9, "bbox": box} for box in given]}
            for file, given in boxes.items()
        ],
        "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
        "info": {"format_version": "1.5", "detector": "by hand"},
    }


def with_(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at `images.0.file`; `...` takes what is there away."""
    content = deepcopy(content)
    *above, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = content
    for part in above:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content
