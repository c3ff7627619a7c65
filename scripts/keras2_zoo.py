"""Networks as Keras 2 saves them, and what Keras 2 answers: python keras2_zoo.py FOLDER [NETWORK ...].

`scripts/keras2` runs it where Keras 2 is installed. Each NETWORK becomes NETWORK.h5, NETWORK.keras, and
NETWORK.json with NETWORK.weights.h5; NETWORK.npy holds what `predict` answers to photos.npy in float32,
NETWORK.f64.npy the same in float64, and NETWORK.preprocess the name of the preprocessing that was applied
before. The reader of this project is not imported.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from tensorflow import keras
from tensorflow.keras import applications, layers

SIDE, SCORES = 96, 7
PREPROCESSING = {
    "caffe": applications.vgg16.preprocess_input,
    "torch": applications.densenet.preprocess_input,
    "tf": applications.xception.preprocess_input,
    "unit": lambda pixels: pixels / 255,
    "none": lambda pixels: pixels,
}
BACKBONES = {
    "caffe": ("ResNet50", "VGG16"),
    "torch": ("DenseNet121",),
    "tf": (
        *("ResNet50V2", "InceptionV3", "InceptionResNetV2", "Xception"),
        *("MobileNet", "MobileNetV2", "NASNetMobile"),
    ),
    "none": ("MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny"),
}


def backbone_with_head(name):
    inner = getattr(applications, name)(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    pooled = layers.GlobalAveragePooling2D()(inner.output)
    return keras.Model(inner.inputs, layers.Dense(SCORES, "softmax")(pooled))


def transfer_learning(rescale):
    """As TensorFlow's guide has it: augmentation, preprocessing and a nested backbone in one model."""
    image = keras.Input((SIDE, SIDE, 3))
    augmented = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(image))
    scaled = rescale(augmented)
    inner = applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    inner.trainable = False
    features = layers.GlobalAveragePooling2D()(inner(scaled, training=False))
    return keras.Model(image, layers.Dense(SCORES)(layers.Dropout(0.3)(features)))


def sequence_of_sequences():
    """As pages that train in the browser export them."""
    inner = applications.MobileNetV2(weights=None, include_top=False, alpha=0.35, input_shape=(SIDE, SIDE, 3))
    body = keras.Sequential([inner, layers.GlobalAveragePooling2D()])
    head = keras.Sequential([layers.Dense(20, "relu"), layers.Dense(SCORES, "softmax", use_bias=False)])
    return keras.Sequential([body, head])


def many_layers():
    image = keras.Input((SIDE, SIDE, 3))
    left = layers.SeparableConv2D(12, 5, strides=3, padding="same", activation="elu")(image)
    left = layers.LeakyReLU(0.2)(layers.BatchNormalization(epsilon=0.01)(left))
    right = layers.Conv2D(12, 3, strides=3, padding="valid", dilation_rate=1, groups=3)(image)
    right = layers.LayerNormalization()(layers.PReLU(shared_axes=(1, 2))(right))
    both = layers.Add()([left, right])
    both = layers.Conv2DTranspose(10, 3, strides=2, padding="same")(layers.AveragePooling2D(2)(both))
    both = layers.UpSampling2D(2)(layers.Cropping2D(1)(layers.ZeroPadding2D((2, 1))(both)))
    both = layers.Multiply()([both, layers.Activation("hard_sigmoid")(both)])
    flat = [layers.GlobalAveragePooling2D()(both), layers.GlobalMaxPooling2D()(both)]
    wide = layers.Dense(16, "selu")(layers.GaussianNoise(0.1)(layers.Concatenate()(flat)))
    return keras.Model(image, layers.Dense(SCORES, "softmax")(wide))


def networks():
    """Name: what makes it, and its preprocessing."""
    found = {
        name: (lambda name=name: backbone_with_head(name), mode)
        for mode, names in BACKBONES.items()
        for name in names
    }
    centred = applications.mobilenet_v2.preprocess_input
    found["transfer_operations"] = (lambda: transfer_learning(centred), "none")
    found["transfer_rescaling"] = (lambda: transfer_learning(layers.Rescaling(1 / 127.5, -1)), "none")
    found["sequence_of_sequences"] = (sequence_of_sequences, "tf")
    found["many_layers"] = (many_layers, "unit")
    return found


def inside(model):
    for layer in model.layers:
        yield from inside(layer) if isinstance(layer, keras.Model) else [layer]


def enliven(model, pixels, generator):
    """Random weights everywhere, and statistics of BatchNorms that fit them: fresh ones would hide faults."""
    for variable in model.weights:
        shape, name = variable.shape, variable.name
        if "variance" in name or "gamma" in name:
            variable.assign(generator.uniform(0.6, 1.4, shape))
        elif len(shape) > 1:
            spread = np.sqrt(2 / np.prod(shape[:-1] if "depthwise" not in name else shape[:2]))
            variable.assign(generator.normal(0, spread, shape))
        else:
            variable.assign(generator.normal(0, 0.1, shape))
    norms = [layer for layer in inside(model) if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        norm.trainable, norm.momentum = True, 0.5
    for _ in range(6):
        model(pixels, training=True)
    for norm in norms:
        norm.momentum = 0.99


def in_float64(make, model, pixels):
    """The answers of the same network in float64, or None where this Keras cannot compute it."""
    keras.backend.set_floatx("float64")
    try:
        wide = make()
        wide.set_weights(model.get_weights())
        return wide.predict(pixels.astype(np.float64), verbose=0)
    except (TypeError, ValueError):
        return None
    finally:
        keras.backend.set_floatx("float32")


def main(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(7)
    coarse = generator.uniform(0, 255, (6, 6, 6, 3)).repeat(16, axis=1).repeat(16, axis=2)
    photos = np.clip(coarse + generator.normal(0, 25, coarse.shape), 0, 255).astype(np.uint8)
    np.save(folder / "photos.npy", photos)
    for name, (make, mode) in networks().items():
        if names and name not in names:
            continue
        keras.backend.clear_session()
        pixels = PREPROCESSING[mode](photos.astype(np.float32))  # a copy: some change theirs in place
        model = make()
        model(pixels[:1])
        enliven(model, pixels, generator)
        answers = model.predict(pixels, verbose=0)
        exact = in_float64(make, model, pixels)
        np.save(folder / f"{name}.npy", answers)
        np.save(folder / f"{name}.f64.npy", answers if exact is None else exact)
        model.save(folder / f"{name}.h5")
        model.save(folder / f"{name}.keras")
        (folder / f"{name}.json").write_text(model.to_json())
        model.save_weights(folder / f"{name}.weights.h5")
        (folder / f"{name}.preprocess").write_text(mode)
        print(name, "answers spread over", float(np.ptp(answers)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
