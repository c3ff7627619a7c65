"""Networks in which a layer's name occurs twice: all of them is trained, as Keras trains it."""

import numpy as np
import pytest

from birdsonnx.model.trainable import trainable_layers
from birdsonnx.model.weights import with_weights
from birdsonnx.training.gradients import Gradients
from birdsonnx.training.losses import TARGETS, Loss
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network
from tests.converted import bird_model
from tests.graphs import answer
from tests.networks import keras_answers, keras_warns

pytestmark = keras_warns

RATE, STEPS = 0.5, 3
LABELS = np.arange(15) // 5


def backbone(keras, name):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="conv1")(inputs)
    x = keras.layers.Conv2D(6, 3, activation="relu", name="conv2")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="pool")(x), name=name)


def ensemble(keras):
    """Two models inside, with the same layer names."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Concatenate()([backbone(keras, "left")(x), backbone(keras, "right")(x)])
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(x))


def nested_head(keras):
    """A model called like one of its layers."""
    inputs = keras.Input((16, 16, 3))
    x = backbone(keras, "body")(keras.layers.Rescaling(1 / 255)(inputs))
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")
    last = keras.layers.Dense(3, activation="softmax", name="classifier")
    return keras.Model(inputs, keras.Sequential([keras.Input((6,)), hidden, last], name="classifier")(x))


@pytest.mark.parametrize("build", [ensemble, nested_head])
def test_three_steps_move_every_weight_as_in_keras(keras, build, tmp_path):
    keras.utils.set_random_seed(1)
    network = build(keras)
    network.save(tmp_path / "network.keras")
    photos = np.random.default_rng(3).integers(0, 120, (15, 16, 16, 3))
    photos[np.arange(15), :, :, LABELS] += 120
    pixels = photos.astype(np.uint8)

    model = bird_model(tmp_path / "network.keras")
    divided = Network(model, trainable_layers(model.metadata, ["*"]))
    part = divided.divide(divided.boundaries()[-1])
    weights, loss = FlatWeights(part.weights), Loss(np.ones(3, np.float32), 0, 0)
    weights.set(part.weights)
    assert weights.flat.size == network.count_params() == model.metadata.parameters.trainable

    feeds = {part.source: pixels, TARGETS: loss.targets(LABELS)}
    gradients = Gradients(part, loss, weights, 1)

    def load(rows):
        return {key: value[list(rows)] for key, value in feeds.items()}

    for _ in range(STEPS):
        total = gradients.sum_over(range(15), load).total
        weights.flat -= RATE * total[:-1] / len(LABELS)

    before = keras_answers(network, photos)
    network.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy")
    network.fit(photos.astype(np.float32), LABELS, batch_size=15, epochs=STEPS, verbose=0)
    after = keras_answers(network, photos)
    found = np.exp(answer(with_weights(model, weights.named).proto, pixels))
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(found, after, rtol=0, atol=1e-5)
