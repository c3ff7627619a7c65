"""Networks of keras.applications as Keras itself builds them: what `architectures` is held against."""

import warnings
from pathlib import Path

from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.keras_io.architectures import DEFAULT_SIZES, named
from birdsonnx.keras_io.tf2onnx_road import keras_source
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork


def build(
    name: str,
    classes: int,
    weights: str = "imagenet",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    channels: int = 3,
) -> KerasNetwork:
    """A network of keras.applications, frozen, average-pooled, and a Dense with log_softmax named `dense`.

    `weights` is `imagenet` (Keras' download), `none` (seeded random weights), or a file; `size` is
    `(height, width)`, by default what the network was trained at.

    Raises:
        ConfigError: an unknown name, or a size or channels that Keras does not build it with.
        ModelError: ImageNet weights that cannot be downloaded, or a file that does not fit.
    """
    name = named(name)
    height, width = size or (DEFAULT_SIZES[name],) * 2
    keras = keras_source.import_keras()
    keras.utils.set_random_seed(seed % 2**32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MobileNet at a size without ImageNet weights of its own
            backbone = getattr(keras.applications, name)(
                include_top=False,
                weights="imagenet" if weights == "imagenet" else None,
                pooling="avg",
                input_shape=(height, width, channels),
            )
    except ValueError as error:  # Keras' word for a size or number of channels that it does not take
        raise ConfigError(
            f"--arch {name}: Keras does not build it for {width}x{height} images of {channels} channel(s) "
            f"and --weights {weights} ({keras_source.one_line(error)})"
        ) from None
    except Exception as error:
        raise ModelError(
            f"the ImageNet weights could not be downloaded ({keras_source.one_line(error)}); give a local "
            "file with --weights FILE, or start from random weights with --weights none"
        ) from None
    backbone.trainable = False
    head = keras.layers.Dense(classes, activation="log_softmax", name="dense")
    model = keras.Model(backbone.input, head(backbone.output))
    network = KerasNetwork(model, {"file": f"keras.applications.{name} ({weights})"})
    return network if weights in ("imagenet", "none") else keras_source.with_weights(network, Path(weights))
