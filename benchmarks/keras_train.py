"""Keras `fit` doing what `birdsonnx train` does: a peer of finetune.py. Prints one JSON object.

Photos are decoded once and held in memory (`cache()`), batches are prefetched. BatchNorm of the frozen
network runs in inference mode; with all layers trained it is trained too, as Keras does.
"""

import argparse
import json
import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf

from benchmarks.steps import Steps


class Clock(keras.callbacks.Callback):
    """Notes when each batch ended."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = Steps()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        self.steps.note()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", choices=("all", "head"), default="head")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--test", action="store_true", help="evaluate valid/ after each epoch")
    arguments = parser.parse_args()

    def photos_of(part: str, shuffled: bool) -> tf.data.Dataset:
        photos = keras.utils.image_dataset_from_directory(
            arguments.data / part, batch_size=None, image_size=(224, 224), shuffle=False, verbose=False
        ).cache()
        if shuffled:
            photos = photos.shuffle(10_000, seed=0)
        photos = photos.batch(arguments.batch)
        return photos.map(
            lambda x, y: (keras.applications.resnet50.preprocess_input(x), y),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).prefetch(2)

    classes = len(list((arguments.data / "train").iterdir()))
    backbone = keras.applications.ResNet50(
        include_top=False, weights=arguments.weights, pooling="avg", input_shape=(224, 224, 3)
    )
    backbone.trainable = arguments.train == "all"
    head = keras.layers.Dense(classes, activation="log_softmax")
    model = keras.Model(backbone.input, head(backbone.output))
    model.compile(
        keras.optimizers.Adam(1e-3 if arguments.train == "head" else 1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    clock = Clock()
    test = photos_of("valid", False) if arguments.test else None
    history = model.fit(
        photos_of("train", True), validation_data=test, epochs=arguments.epochs, verbose=0, callbacks=[clock]
    )
    print(
        json.dumps(
            {
                **clock.steps.figures(),
                "precision": "float32",
                "losses": history.history["loss"],
                "accuracies": history.history.get("val_accuracy", []),
            }
        )
    )


if __name__ == "__main__":
    main()
