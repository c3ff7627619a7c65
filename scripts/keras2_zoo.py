"""Write the files that Keras 2 users have, each with Keras 2's own predictions, into a folder.

    scripts/keras2 [PYTHON] [VERSION]        # makes the environment, and runs this in it
    .venv-keras2-2.15.1/bin/python scripts/keras2_zoo.py OUT [NAME ...]

For each NAME: NAME.h5 and NAME.keras (full models), NAME.json with NAME.weights.h5, NAME.npy (float32
[6, classes], what `predict` answers to photos.npy, uint8 [6, 96, 96, 3], after the network's preprocessing
where that is not a layer), NAME.f64.npy (the same network computed in float64: the truth that rounding is
measured against) and NAME.preprocess (the name of that preprocessing). Random weights amplify rounding: a
right conversion is about as far from the float64 answer as Keras' own float32 is, a wrong one far more.
Nothing of birdsonnx is imported.
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from pathlib import Path

import numpy as np
from tensorflow import keras

A, L, SIZE, CLASSES = keras.applications, keras.layers, 96, 7
SHAPE = (SIZE, SIZE, 3)
RNG = np.random.default_rng(0)
PHOTOS = np.clip(RNG.normal(120, 60, (6, *SHAPE)), 0, 255).astype(np.uint8)
MODES = {
    "caffe": A.resnet50.preprocess_input,
    "torch": A.densenet.preprocess_input,
    "tf": A.mobilenet_v2.preprocess_input,
    "none": lambda x: x,
    "unit": lambda x: x / 255,
}
FLAT = {
    **{
        "ResNet50": "caffe",
        "ResNet50V2": "tf",
        "VGG16": "caffe",
        "DenseNet121": "torch",
        "InceptionV3": "tf",
    },
    **{"InceptionResNetV2": "tf", "Xception": "tf", "MobileNet": "tf", "MobileNetV2": "tf"},
    **{"MobileNetV3Small": "none", "EfficientNetB0": "none", "EfficientNetV2B0": "none"},
    **{"NASNetMobile": "tf", "ConvNeXtTiny": "none"},
}
"""The backbone's layers in one Functional model, as the birds tutorial makes it."""


def head(features):
    spread = keras.initializers.RandomNormal(stddev=0.3)
    return L.Dense(CLASSES, activation="softmax", kernel_initializer=spread)(features)


def take_statistics(model, pixels):
    """BatchNorm statistics of these photos: a fresh network gives every photo the same answer."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(pixels, training=True)
    for layer in norms:
        layer.momentum = 0.99


def flat(name):
    base = getattr(A, name)(include_top=False, weights=None, input_shape=SHAPE, pooling="avg")
    take_statistics(base, MODES[FLAT[name]](PHOTOS.astype("f4")))
    base.trainable = False
    return keras.Model(base.input, head(base.output)), FLAT[name]


def nested(rescale):
    """TensorFlow's transfer-learning guide: the backbone is a layer, preprocessing is inside."""
    base = A.MobileNetV2(include_top=False, weights=None, input_shape=SHAPE)
    take_statistics(base, MODES["tf"](PHOTOS.astype("f4")))
    base.trainable = False
    image = keras.Input(SHAPE)
    x = L.RandomFlip("horizontal")(image)
    # The latter becomes TFOpLambda layers.
    x = L.Rescaling(1 / 127.5, offset=-1)(x) if rescale else A.mobilenet_v2.preprocess_input(x)
    x = L.Dropout(0.2)(L.GlobalAveragePooling2D()(base(x, training=False)))
    return keras.Model(image, L.Dense(CLASSES)(x)), "none"


def sequentials():
    """What a well-known web page for teaching machines exports: Sequential of Sequentials."""
    base = A.MobileNetV2(include_top=False, weights=None, input_shape=SHAPE, alpha=0.35)
    hidden = L.Dense(100, activation="relu", input_shape=(1280,))
    top = keras.Sequential([hidden, L.Dense(CLASSES, use_bias=False, activation="softmax")])
    model = keras.Sequential([keras.Sequential([base, L.GlobalAveragePooling2D()]), top])
    model.build((None, *SHAPE))
    return model, "tf"


def layers_of_all_kinds():
    image = keras.Input(SHAPE)
    x = L.LeakyReLU(0.1)(L.BatchNormalization()(L.SeparableConv2D(16, 3, strides=2, padding="same")(image)))
    x = L.PReLU(shared_axes=[1, 2])(
        L.BatchNormalization()(L.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(x))
    )
    x = L.ReLU(6.0)(L.DepthwiseConv2D(3, padding="same")(x))
    x = L.Dense(CLASSES)(L.Concatenate()([L.GlobalAveragePooling2D()(x), L.GlobalMaxPooling2D()(x)]))
    return keras.Model(image, L.Activation("softmax")(x)), "unit"


MAKERS = {
    **{name: (lambda name=name: flat(name)) for name in FLAT},
    "guide_lambdas": lambda: nested(False),
    "guide_rescaling": lambda: nested(True),
    "sequentials": sequentials,
    "layers_of_all_kinds": layers_of_all_kinds,
}


def in_float64(name, model, pixels, answers):
    """What the same network answers in float64; `answers` where a layer of this Keras has none."""
    keras.backend.set_floatx("float64")
    try:
        exact, _ = MAKERS[name]()
        exact.set_weights([weight.astype("f8") for weight in model.get_weights()])
        return exact.predict(pixels.astype("f8"), verbose=0)
    except TypeError as error:
        print(name, "has no float64 here:", str(error).splitlines()[0][:90])
        return answers.astype("f8")
    finally:
        keras.backend.set_floatx("float32")


def main(out, names):
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "photos.npy", PHOTOS)
    for name in names or MAKERS:
        keras.utils.set_random_seed(0)
        model, mode = MAKERS[name]()
        pixels = MODES[mode](PHOTOS.astype("f4"))
        take_statistics(model, pixels)
        answers = model.predict(pixels, verbose=0)
        exact = in_float64(name, model, pixels, answers)
        np.save(out / f"{name}.npy", answers)
        np.save(out / f"{name}.f64.npy", exact)
        (out / f"{name}.preprocess").write_text(mode)
        model.save(out / f"{name}.h5")
        model.save(out / f"{name}.keras")
        (out / f"{name}.json").write_text(model.to_json())
        model.save_weights(out / f"{name}.weights.h5")
        rounding = np.abs(answers - exact).max()
        print(name, f"spread {answers.std():.3f}, float32 is {rounding:.1e} from float64", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
