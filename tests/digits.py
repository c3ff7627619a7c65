"""Two classes of pictures like handwritten digits, and a network in the manner of LeNet for them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 28
CLASSES = ("0", "1")


def digit(name: str, generator: np.random.Generator) -> Image.Image:
    """A ring or a stroke, white on black: of any place, size, slant and width, in front of noise."""
    image = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)
    x, y = 14 + generator.integers(-3, 4, 2)
    half, width = int(generator.integers(7, 11)), int(generator.integers(2, 5))
    if name == "0":
        across = half - int(generator.integers(2, 5))
        draw.ellipse((x - across, y - half, x + across, y + half), outline=255, width=width)
    else:
        lean = int(generator.integers(-3, 4))
        draw.line((x - lean, y + half, x + lean, y - half), fill=255, width=width)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), np.float64)
    noisy = pixels + generator.normal(0, 20, pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def make_digits(folder: Path, per_class: int, seed: int) -> Path:
    """`folder/<class>/<number>.png`, grayscale, 28 x 28 pixels."""
    generator = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            digit(name, generator).save(folder / name / f"{number:03}.png")
    return folder


def lenet(dropout: float = 0.25, units: int = len(CLASSES)) -> list[dict[str, Any]]:
    """Convolution and pooling twice, dropout, two Dense layers: an array as rmldnn takes it."""
    pooling = {"class_name": "MaxPooling2D", "config": {"pool_size": [2, 2], "strides": [2, 2]}}

    def convolution(filters: int, **config: Any) -> dict[str, Any]:
        config |= {"filters": filters, "kernel_size": [5, 5], "activation": "relu", "dtype": "float32"}
        return {"class_name": "Conv2D", "config": config}

    return [
        convolution(8, batch_input_shape=[None, SIZE, SIZE, 1], data_format="channels_last"),
        pooling,
        convolution(16, kernel_initializer={"class_name": "GlorotUniform", "config": {}}),
        pooling,
        {"class_name": "Dropout", "config": {"rate": dropout}},
        {"class_name": "Flatten", "config": {}},
        {"class_name": "Dense", "config": {"units": 32, "activation": "relu"}},
        {"class_name": "Dense", "config": {"units": units, "activation": "log_softmax"}},
    ]
