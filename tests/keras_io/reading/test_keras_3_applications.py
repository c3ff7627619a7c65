"""Networks of keras.applications as the installed Keras 3 writes them, with weights that are no defaults."""

import numpy as np
import pytest

from birdsonnx.keras_io.reading import graph_of, read
from tests.graphs import answer
from tests.networks import keras_warns

pytestmark = [pytest.mark.slow, keras_warns]
NAMES = (
    *("ResNet50", "ResNet50V2", "VGG16", "DenseNet121", "InceptionV3", "InceptionResNetV2", "Xception"),
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0", "NASNetMobile"),
    "ConvNeXtTiny",
)
OWN_PREPROCESSING = ("EfficientNet", "MobileNetV3", "ConvNeXt")
CLASSES = 7


def with_other_weights(keras, model, photos):
    """BatchNorm statistics of the photos, and factors and terms that are not 1 and 0."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(photos, training=True)
    generator = np.random.default_rng(1)
    for layer in model.layers:
        for weight in layer.trainable_weights:
            role, shape = weight.path.rpartition("/")[2], weight.shape
            if role in ("gamma", "variable"):  # the second is ConvNeXt's LayerScale
                weight.assign(generator.uniform(0.6, 1.2, shape))
            elif role in ("beta", "bias"):
                weight.assign(generator.normal(0, 0.05, shape))


@pytest.mark.parametrize("name", NAMES)
def test_an_application_answers_as_keras_does(keras, name, tmp_path):
    keras.utils.set_random_seed(0)
    size = 96 if name in ("InceptionV3", "InceptionResNetV2", "Xception") else 64
    make = getattr(keras.applications, name)
    base = make(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
    spread = keras.initializers.RandomNormal(stddev=0.05)
    head = keras.layers.Dense(CLASSES, kernel_initializer=spread, name="head")
    model = keras.Model(base.input, head(base.output))
    photos = np.clip(np.random.default_rng(0).normal(120, 60, (4, size, size, 3)), 0, 255).astype(np.float32)
    if not name.startswith(OWN_PREPROCESSING):
        photos = photos / np.float32(127.5) - 1
    with_other_weights(keras, model, photos)
    expected = model.predict(photos, verbose=0)
    for suffix in ("keras", "h5"):
        path = tmp_path / f"{name}.{suffix}"
        model.save(path)
        file = read(path)
        found = answer(graph_of(file).model, photos.transpose(0, 3, 1, 2))
        # Keras' own float32 is up to 1.5e-3 of the spread from float64 in these (EfficientNetB0).
        assert np.abs(found - expected).max() <= 5e-3 * expected.std()
        counts = file.parameters
        assert counts.total == model.count_params()
        assert counts.trainable == sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
