"""What ONNX itself has to say that an input is a photo: programs that know nothing of birdsonnx read it.

Sources: TypeDenotation.md, DimensionDenotation.md and MetadataProps.md of the ONNX standard.
"""

from onnx import GraphProto

IMAGE = "IMAGE"
AXES = ("DATA_BATCH", "DATA_FEATURE", "DATA_FEATURE", "DATA_CHANNEL")
"""Of `[batch, height, width, channels]`."""
PREFIX = "Image."


def denote(graph: GraphProto) -> None:
    """Mark the graph's first input as photos, uint8 `[batch, height, width, channels]`, in place."""
    kind = graph.input[0].type
    kind.denotation = IMAGE
    for dim, axis in zip(kind.tensor_type.shape.dim, AXES, strict=True):
        dim.denotation = axis


def is_denoted(graph: GraphProto) -> bool:
    return denotations(graph) == (IMAGE, AXES)


def denotations(graph: GraphProto) -> tuple[str, tuple[str, ...]]:
    """Those of the graph's first input: its own, and those of its axes."""
    kind = graph.input[0].type
    return kind.denotation, tuple(dim.denotation for dim in kind.tensor_type.shape.dim)


def image_props(channels: int) -> dict[str, str]:
    """The standard's metadata of such photos: what decoders give, sRGB in 8 bits."""
    return {
        f"{PREFIX}BitmapPixelFormat": "Gray8" if channels == 1 else "Rgb8",
        f"{PREFIX}ColorSpaceGamma": "SRGB",
        f"{PREFIX}NominalPixelRange": "NominalRange_0_255",
    }
