"""All files of scripts/keras2: whole networks as Keras 2 wrote them, against its answers in float64."""

from pathlib import Path

import numpy as np
import pytest

from birdsonnx.keras_io.reading import graph_of, read
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes import strides
from birdsonnx.passes.max_pool_padding import PadIntoMaxPool
from birdsonnx.passes.rewriting import apply
from tests.graphs import answer

ZOOS = sorted((Path(__file__).resolve().parents[3] / "build").glob("keras2-*"))
NETWORKS = [network for zoo in ZOOS for network in sorted(zoo.glob("*.preprocess"))]
FLOOR = 1e-6
"""Where Keras' float32 happens to be the float64 answer."""
WITHOUT_TRUTH = 2e-5
"""Of the largest answer, where Keras 2 has no float64 (ConvNeXt's LayerScale in 2.12, operations outside
layers): then two float32 answers are compared."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not NETWORKS, reason="no files of Keras 2; scripts/keras2 makes them"),
]


@pytest.mark.parametrize("suffix", ["h5", "keras", "json"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_network_is_as_near_to_the_truth_as_keras(network, suffix):
    """Random weights amplify rounding: right means not much further from float64 than Keras' own float32."""
    photos = np.load(network.parent / "photos.npy")
    exact = np.load(network.with_suffix(".f64.npy"))
    rounding = np.abs(np.load(network.with_suffix(".npy")) - exact).max()
    weights = network.with_suffix(".weights.h5") if suffix == "json" else None
    file = read(network.with_suffix(f".{suffix}"), weights=weights)
    pixels = of_mode(network.read_text(), 3)(photos).transpose(0, 3, 1, 2)
    model = graph_of(file).model
    apply(PadIntoMaxPool(), model.graph)
    strides.move_strides_up(model.graph)
    allowed = 5 * rounding + FLOOR if rounding else WITHOUT_TRUTH * max(1, np.abs(exact).max())
    assert np.abs(answer(model, pixels) - exact).max() <= allowed
    counts = file.parameters
    assert counts.total == sum(array.size for held in file.weights.values() for array in held.values())
