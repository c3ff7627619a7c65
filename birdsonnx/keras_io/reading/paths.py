"""The name that each layer has in the whole network: its own where that is unique, else with its models'."""

from collections import Counter
from collections.abc import Mapping

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading.records import Network, leaves

Full = tuple[str, ...]
"""A layer's name behind those of the models around it."""
Paths = Mapping[Full, str]
"""What a layer is called in the graph; one that stands in several models has one name."""


def paths_of(network: Network, where: str) -> Paths:
    """The path of every layer that is no model: `conv1`, or `left/conv1` where another is called `conv1`.

    Raises:
        ModelError: two layers end up with one path.
    """
    first: dict[int, Full] = {}
    same: dict[Full, Full] = {}
    names: dict[Full, str] = {}
    for full, layer in leaves(network):
        same[full] = full if layer.shared is None else first.setdefault(layer.shared, full)
        names[full] = layer.name
    times = Counter(name for full, name in names.items() if same[full] == full)
    paths = {full: name if times[name] == 1 else "/".join(full) for full, name in names.items()}
    own = Counter(path for full, path in paths.items() if same[full] == full)
    twice = [path for path, count in own.items() if count > 1]
    if twice:
        raise ModelError(f"{where}: two of its layers are both called {twice[0]!r}; rename one of them")
    return {full: paths[same[full]] for full in names}
