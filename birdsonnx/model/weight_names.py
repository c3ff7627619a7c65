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


def layer_of(name: str, layers: Collection[str]) -> str | None:
    """The layer that a weight such as `conv1/kernel` or a node such as `conv1/Conv` belongs to, or None.

    It is the longest of these layers' paths that the name begins with: a layer of a nested model has the
    model's name in its own, `backbone/conv1`.
    """
    scopes = name.split("/")
    paths = ("/".join(scopes[:end]) for end in range(len(scopes) - 1, 0, -1))
    return next((path for path in paths if path in layers), None)
