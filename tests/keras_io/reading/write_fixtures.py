"""Write small networks, one per layer class or idiom, each with the answers of the Keras that runs this.

    .venv-keras2/bin/python tests/keras_io/reading/write_fixtures.py   # writes fixtures/keras2.tar.xz
    .venv/bin/python tests/keras_io/reading/write_fixtures.py          # writes fixtures/keras3.tar.xz

The archive holds for each NAME: NAME.h5 and NAME.keras as Keras saves them, and NAME.npy, what `predict`
answers to photos.npy. Sides of photos differ, weights are no defaults, so that a wrong epsilon, padding, axis
or order of weights shows. Nothing of birdsonnx is imported.
"""

import os
import sys
import tarfile
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np
import tensorflow as tf

L = keras.layers
KERAS = int(keras.__version__.split(".")[0])
SHAPE = (9, 7, 3)
PHOTOS = np.random.default_rng(0).normal(0, 1.5, (3, *SHAPE)).astype(np.float32)

CHAINS = {
    "conv2d_same": lambda: [L.Conv2D(4, 3, strides=2, padding="same", activation="relu")],
    "conv2d_valid": lambda: [L.Conv2D(4, (3, 2), strides=(1, 2))],
    "conv2d_dilated": lambda: [L.Conv2D(4, (3, 2), dilation_rate=2, padding="same", use_bias=False)],
    "conv2d_grouped": lambda: [L.Conv2D(6, 3, groups=3)],
    "conv2d_padded": lambda: [L.ZeroPadding2D(((1, 2), (0, 3))), L.Conv2D(4, 4, padding="same", strides=2)],
    "conv2d_batch_norm": lambda: [L.Conv2D(4, 3), L.BatchNormalization(epsilon=0.1), L.ReLU()],
    "depthwise": lambda: [L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)],
    "separable": lambda: [L.SeparableConv2D(5, (3, 2), padding="same", depth_multiplier=2)],
    "transposed_same": lambda: [L.Conv2DTranspose(4, 3, strides=2, padding="same")],
    "transposed_valid": lambda: [L.Conv2DTranspose(4, (2, 4), strides=3)],
    "transposed_longer": lambda: [L.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1)],
    "conv1d": lambda: [
        L.Reshape((9, 21)),
        L.Conv1D(4, 3, padding="causal", dilation_rate=2),
        L.SeparableConv1D(6, 3, padding="same"),
        L.MaxPooling1D(2),
        L.AveragePooling1D(3, 1, padding="same"),
        L.ZeroPadding1D((1, 2)),
        L.Cropping1D((1, 0)),
        L.GlobalMaxPooling1D(),
    ],
    "conv1d_transposed": lambda: [L.Reshape((9, 21)), L.Conv1DTranspose(4, 3, strides=2), L.UpSampling1D(2)],
    "conv3d": lambda: [
        L.Reshape((9, 7, 3, 1)),
        L.ZeroPadding3D((1, 0, 1)),
        L.Conv3D(4, 2, padding="same", strides=(2, 1, 1)),
        L.Cropping3D(((1, 0), (0, 1), (1, 1))),
        L.MaxPooling3D((2, 1, 1)),
        L.AveragePooling3D((1, 2, 2), padding="same"),
        L.GlobalAveragePooling3D(),
    ],
    "dense": lambda: [
        L.Flatten(),
        L.Dense(5, activation="tanh"),
        L.BatchNormalization(),
        L.Dense(4, "softmax"),
    ],
    "dense_on_maps": lambda: [L.Dense(4, activation="gelu"), L.Conv2D(2, 2)],
    "max_pooling": lambda: [L.MaxPooling2D(3, 2, padding="same")],
    "max_pooling_padded": lambda: [L.ReLU(), L.ZeroPadding2D(1), L.MaxPooling2D(3, 2)],
    "average_pooling": lambda: [L.AveragePooling2D(3, 2, padding="same")],
    "average_pooling_valid": lambda: [L.AveragePooling2D((2, 3))],
    "global_average": lambda: [L.GlobalAveragePooling2D(keepdims=True), L.Conv2D(2, 1), L.Flatten()],
    "global_max": lambda: [L.Conv2D(4, 2), L.GlobalMaxPooling2D()],
    "batch_norm": lambda: [L.BatchNormalization(epsilon=0.1, momentum=0.5)],
    "batch_norm_no_scale": lambda: [L.Conv2D(3, 1), L.BatchNormalization(scale=False)],
    "batch_norm_no_center": lambda: [L.ReLU(), L.BatchNormalization(center=False)],
    "batch_norm_of_rows": lambda: [L.BatchNormalization(axis=1)],
    "layer_norm": lambda: [L.LayerNormalization(epsilon=0.1)],
    "layer_norm_of_all": lambda: [L.LayerNormalization(axis=[1, 2, 3])],
    "layer_norm_plain": lambda: [
        L.Conv2D(4, 2),
        L.LayerNormalization(axis=[2, 3], center=False, scale=False),
    ],
    "group_norm": lambda: [L.Conv2D(6, 2), L.GroupNormalization(groups=2, epsilon=0.1)],
    "unit_norm": lambda: [L.UnitNormalization(axis=[1, 3])],
    "normalization": lambda: [L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 0.5, 4.0])],
    "normalization_adapted": lambda: [L.Conv2D(2, 1), L.Normalization(axis=-1)],
    "relu": lambda: [L.ReLU(max_value=2.0, negative_slope=0.1)],
    "leaky_relu": lambda: [L.LeakyReLU(0.15)],
    "prelu": lambda: [L.PReLU(), L.Conv2D(4, 2), L.PReLU(shared_axes=[1, 2])],
    "elu": lambda: [L.ELU(0.5)],
    "softmax_of_rows": lambda: [L.Softmax(axis=1)],
    "softmax_of_places": lambda: [L.Conv2D(2, 2), L.Softmax(axis=[1, 2])],
    "softmax_of_two": lambda: [L.Softmax(axis=[1, 3])],
    "permute": lambda: [L.Permute((3, 1, 2)), L.Conv2D(4, 2, padding="same"), L.Flatten()],
    "repeat_vector": lambda: [L.Flatten(), L.Dense(4), L.RepeatVector(3)],
    "reshape": lambda: [L.Conv2D(4, 2), L.Reshape((-1, 8)), L.GlobalAveragePooling1D(), L.Reshape((1, 1, 8))],
    "cropping": lambda: [L.Cropping2D(((1, 2), (3, 0)))],
    "up_nearest": lambda: [L.UpSampling2D((2, 3))],
    "up_bilinear": lambda: [L.UpSampling2D((2, 3), interpolation="bilinear")],
    "resizing": lambda: [L.Resizing(5, 11)],
    "resizing_nearest": lambda: [L.Resizing(13, 4, interpolation="nearest")],
    "resizing_cut": lambda: [L.Resizing(6, 12, crop_to_aspect_ratio=True)],
    "center_crop": lambda: [L.CenterCrop(4, 4)],
    "center_crop_of_smaller": lambda: [L.CenterCrop(12, 5)],
    "rescaling": lambda: [L.Rescaling(1 / 127.5, offset=-1.0)],
    "rescaling_by_channel": lambda: [L.Rescaling([0.5, 1.0, 2.0], offset=[1.0, 0.0, -1.0])],
    "augmentation": lambda: [
        L.RandomFlip("horizontal"),
        L.RandomRotation(0.1),
        L.RandomZoom(0.2),
        L.RandomContrast(0.1),
        L.RandomTranslation(0.1, 0.1),
        L.GaussianNoise(0.1),
        L.GaussianDropout(0.1),
    ],
    "dropouts": lambda: [
        L.Dropout(0.3, noise_shape=(None, 1, 1, None)),
        L.SpatialDropout2D(0.2),
        L.Conv2D(4, 2),
        L.ActivityRegularization(0.1),
        L.Flatten(),
        L.Dropout(0.5),
        L.Dense(3),
    ],
    "activation_layer": lambda: [L.Conv2D(4, 2, activation=L.LeakyReLU(0.3)), L.Activation("log_softmax")],
}
"""Layers one after the other."""

COMMON = (
    *(
        "relu",
        "elu",
        "selu",
        "sigmoid",
        "hard_sigmoid",
        "tanh",
        "softplus",
        "softsign",
        "exponential",
        "swish",
    ),
    *("gelu", "softmax", "linear", "mish", "log_softmax", "leaky_relu", "relu6"),
)
NEW = (
    *("celu", "hard_silu", "log_sigmoid", "hard_tanh", "tanh_shrink", "soft_shrink", "squareplus", "silu"),
)


def merging(x):
    a, b = L.Conv2D(3, 1)(x), L.Conv2D(3, 1)(x)
    pooled = L.GlobalAveragePooling2D()(b)
    gate = L.Dense(3, activation="sigmoid")(L.Reshape((1, 1, 3))(pooled))
    parts = [
        L.Add()([x, a, b]),
        L.Subtract()([a, b]),
        L.Multiply()([a, gate]),
        L.Average()([a, b, x]),
        L.Maximum()([a, b]),
        L.Minimum()([a, b, x]),
    ]
    return L.Concatenate(axis=1)([L.Concatenate()(parts), L.Concatenate()(parts[::-1])])


def dot(x):
    rows = L.Reshape((9, 21))(x)
    products = L.Dot(axes=(2, 2))([rows, L.Dense(21)(rows)])
    alike = L.Dot(axes=1, normalize=True)([L.Flatten()(products), L.Dense(81)(L.Flatten()(rows))])
    return L.Concatenate()([L.Flatten()(products), alike])


def multi_head_attention(x):
    rows = L.Reshape((9, 21))(x)
    return L.MultiHeadAttention(2, 5, value_dim=3)(rows, L.Dense(6)(rows))


def attention(x):
    rows = L.Reshape((9, 21))(x)
    return L.Attention(use_scale=True)([rows, L.Dense(21)(rows)])


def backbone(name, depth=4):
    image = keras.Input(SHAPE)
    x = L.BatchNormalization(name="bn")(L.Conv2D(depth, 3, name="conv")(image))
    return keras.Model(image, L.BatchNormalization(name="bn2")(L.ReLU()(x)), name=name)


def nested(x):
    return L.GlobalAveragePooling2D()(backbone("inner")(x))


def nested_frozen(x):
    inner = backbone("inner")
    inner.trainable = False
    return L.Dense(4)(L.GlobalAveragePooling2D()(inner(x, training=False)))


def nested_half_frozen(x):
    inner = backbone("inner")
    inner.get_layer("bn").trainable = False
    return L.GlobalAveragePooling2D()(inner(x))


def nested_twice(x):
    inner = backbone("inner")
    return L.Concatenate()([inner(x), inner(L.ReLU()(x))])


def same_names(x):
    left, right = backbone("left"), backbone("right")
    return L.Add()([left(x), right(x)])


def layer_twice(x):
    conv = L.Conv2D(3, 1, activation="relu")
    return conv(conv(x))


def sequential_inside(x):
    inner = keras.Sequential([L.Conv2D(4, 2, input_shape=SHAPE), L.BatchNormalization()])
    return keras.Sequential([inner, keras.Sequential([L.Flatten(), L.Dense(5)])])(x)


def functions(x):
    """Operations without a layer, as `preprocess_input` and small heads have them."""
    if KERAS == 2:
        x = tf.nn.relu6(x[..., ::-1] / 2.0 - 1.0) * [1.0, 2.0, 3.0]
        x = tf.concat([x[:, 1:, :, :2], 1.0 - x[:, :-1]], axis=-1)
        x = tf.nn.gelu(x) + tf.nn.swish(x) + tf.math.sqrt(tf.math.square(x) + 0.1)
        y = tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, 5, 56])
        y = tf.math.reduce_mean(y, axis=-1, keepdims=True) * tf.expand_dims(
            tf.math.reduce_max(y, axis=[2]), 2
        )
        return tf.nn.softmax(tf.squeeze(y, axis=2)) + tf.math.l2_normalize(y[:, :, 0], axis=-1)
    ops = keras.ops
    x = ops.relu6(x[..., ::-1] / 2.0 - 1.0) * np.array([1.0, 2.0, 3.0], np.float32)
    x = ops.concatenate([x[:, 1:, :, :2], 1.0 - x[:, :-1]], axis=-1)
    x = ops.gelu(x) + ops.silu(x) + ops.sqrt(ops.square(x) + 0.1) + ops.hard_sigmoid(x) + ops.hard_silu(x)
    y = ops.reshape(ops.transpose(x, [0, 3, 1, 2]), [-1, 5, 56])
    y = ops.mean(y, axis=-1, keepdims=True) * ops.expand_dims(ops.max(y, axis=[2]), 2)
    return ops.softmax(ops.squeeze(y, axis=2)) + ops.clip(ops.flip(y[:, :, 0], axis=1), -0.5, 0.5)


GRAPHS = {
    "activations": lambda x: L.Concatenate()([L.Activation(name)(x) for name in activations()]),
    "merging": merging,
    "dot": dot,
    "multi_head_attention": multi_head_attention,
    "attention": attention,
    "nested": nested,
    "nested_frozen": nested_frozen,
    "nested_half_frozen": nested_half_frozen,
    "nested_twice": nested_twice,
    "same_names": same_names,
    "layer_twice": layer_twice,
    "sequential_inside": sequential_inside,
    "functions": functions,
}
"""Networks of other shapes."""


def activations():
    names = [*COMMON, *(NEW if KERAS == 3 else ())]
    return [name for name in names if hasattr(keras.activations, name)]


def small_head():
    image = keras.Input(SHAPE)
    x = L.BatchNormalization()(L.Conv2D(4, 3)(image))
    return keras.Model(image, L.Dense(3, dtype="float32")(L.GlobalAveragePooling2D()(x)))


def mixed_precision():
    """Written with a policy in the place of a type, and computed in float16 by Keras."""
    set_policy = keras.mixed_precision.set_global_policy if KERAS == 2 else keras.config.set_dtype_policy
    set_policy("mixed_float16")
    try:
        return small_head()
    finally:
        set_policy("float32")


def networks():
    for name, make in CHAINS.items():
        image = x = keras.Input(SHAPE)
        for layer in make():
            x = layer(x)
        yield name, keras.Model(image, x)
        if name in ("conv2d_batch_norm", "dense"):
            yield f"{name}_sequential", keras.Sequential([keras.Input(SHAPE), *make()])
    for name, draw in GRAPHS.items():
        image = keras.Input(SHAPE)
        yield name, keras.Model(image, draw(image))
    if KERAS == 3:
        image = keras.Input(SHAPE)
        yield "rms_norm", keras.Model(image, L.RMSNormalization(epsilon=0.1)(image))
    yield "mixed_precision", mixed_precision()


def randomize(model):
    """Weights that are no defaults; variances are positive, factors near 1."""
    generator = np.random.default_rng(1)
    values = []
    for variable, value in zip(model.weights, model.get_weights(), strict=True):
        path = getattr(variable, "path", variable.name)
        role = path.split("/")[-1].split(":")[0]
        if value.dtype.kind != "f":  # how many photos a Normalization saw
            values.append(value)
            continue
        new = generator.normal(0, 0.5, value.shape)
        if "variance" in role:
            new = np.abs(new) + 0.5
        elif role in ("gamma", "scale"):
            new = new + 1
        values.append(new.astype(value.dtype))
    model.set_weights(values)


def main(target):
    with tempfile.TemporaryDirectory() as folder, tarfile.open(target, "w:xz") as archive:
        place = Path(folder)
        np.save(place / "photos.npy", PHOTOS)
        archive.add(place / "photos.npy", "photos.npy")
        for name, model in networks():
            randomize(model)
            for suffix in ("h5", "keras"):
                try:
                    model.save(place / f"{name}.{suffix}")
                except TypeError as error:  # Keras 2.15 cannot write an ellipsis into a .keras
                    print(name, suffix, str(error)[:80])
                    continue
                archive.add(place / f"{name}.{suffix}", f"{name}.{suffix}")
            # Read again: a Normalization works its deviation out when it is loaded.
            loaded = keras.models.load_model(place / f"{name}.h5", compile=False) if KERAS == 2 else model
            if KERAS == 3 and name == "normalization_adapted":
                loaded = keras.models.load_model(place / f"{name}.keras", compile=False)
            if name == "mixed_precision":  # what its weights give in float32
                loaded = small_head()
                loaded.set_weights(model.get_weights())
            np.save(place / f"{name}.npy", np.asarray(loaded.predict(PHOTOS, verbose=0), np.float32))
            archive.add(place / f"{name}.npy", f"{name}.npy")
    print(target, f"{target.stat().st_size / 1000:.0f} kB", keras.__version__)


if __name__ == "__main__":
    folder = Path(__file__).parent / "fixtures"
    folder.mkdir(exist_ok=True)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else folder / f"keras{KERAS}.tar.xz")
