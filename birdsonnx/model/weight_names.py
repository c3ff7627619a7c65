"""What the weights of a layer are called in the graph."""

from collections.abc import Collection

ROLES = (
    "kernel",
    "depthwise_kernel",
    "pointwise_kernel",
    "bias",
    "gamma",
    "beta",
    "scale",
    "shift",
    "negative_alpha",
)
"""What a layer may hold: Keras' variables by their names where the graph holds them as they are, and the
`scale` and `shift` that become of a BatchNorm which is folded into no convolution."""


def layer_of_node(node: str, layers: Collection[str]) -> str | None:
    """The layer that a node such as `conv1_conv/Conv` belongs to, or None."""
    scopes = node.split("/")
    paths = ("/".join(scopes[:end]) for end in range(len(scopes) - 1, 0, -1))
    return next((path for path in paths if path in layers), None)
