"""The options of `birdsonnx predict` about a detector's boxes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdsonnx.errors import ConfigError

if TYPE_CHECKING:
    from birdsonnx.images.crops import BoxRequest

DetectionsFile = Annotated[
    Path | None,
    typer.Option(
        "--detections",
        metavar="FILE",
        help="Name the boxes of a detector instead of whole photos: a JSON file in MegaDetector's format.",
    ),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="With --detections: the least confidence of a box to be named (default: 0.2)."
    ),
]
DetectionCategories = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="With --detections: categories of the detector whose boxes are named, with commas between, or "
        "all (default: animal; where there is none, all).",
    ),
]
CropPadding = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="With --detections: what is added to a box on every side, as a share of its longer side "
        "(default: 0).",
    ),
]
CropSquare = Annotated[
    bool | None,
    typer.Option(
        "--crop-square/--no-crop-square",
        help="With --detections: whether a box grows to a square, so that nothing is squashed (default: "
        "it does).",
    ),
]


def boxes_of(
    file: Path | None,
    min_confidence: float | None,
    categories: str | None,
    padding: float | None,
    square: bool | None,
) -> "BoxRequest | None":
    """Which boxes are to be named. Raises ConfigError where an option has no file that it is for."""
    from birdsonnx.images.crops import EVERY, BoxRequest, Cutting

    given = {
        "--min-confidence": min_confidence,
        "--detection-categories": categories,
        "--crop-padding": padding,
        "--crop-square": square,
    }
    if file is None:
        alone = next((option for option, value in given.items() if value is not None), None)
        if alone is not None:
            raise ConfigError(f"{alone} is for the boxes of --detections, and there are none")
        return None
    names = None
    if categories is not None:
        names = tuple(filter(None, (name.strip() for name in categories.split(","))))
        if not names:
            raise ConfigError(f"--detection-categories {categories!r}: names no category")
        names = () if [name.lower() for name in names] == [EVERY] else names
    usual = BoxRequest(file)
    cutting = Cutting(
        usual.cutting.padding if padding is None else padding,
        usual.cutting.square if square is None else square,
    )
    return BoxRequest(
        file, usual.min_confidence if min_confidence is None else min_confidence, names, cutting
    )
