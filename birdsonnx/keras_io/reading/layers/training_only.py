"""Layers that do nothing in a prediction. Dropout is kept: it acts when the graph is trained."""

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.options import Refusal
from birdsonnx.keras_io.reading.step import Kind, Step
from birdsonnx.model.metadata import Dropout


def _dropout(step: Step) -> Tensor:
    """Keras' noise_shape has 1 for axes along which all values are dropped together."""
    x = step.x
    noise = step.options.raw("noise_shape", None)
    noise = [None] * x.rank if noise is None else noise
    if not isinstance(noise, list | tuple) or len(noise) != x.rank:
        raise step.options.wrong("noise_shape", f"null, or {x.rank} sizes")
    fits = all(size in (None, 1, side) for size, side in zip(noise[1:], x.shape, strict=True))
    if noise[0] == 1 or not fits:
        raise Refusal(f"noise_shape {list(noise)} is not read; each size may be null or 1, the first null")
    return _dropped(
        step, tuple(1 if size == 1 else side for size, side in zip(noise[1:], x.shape, strict=True))
    )


def _spatial_dropout(step: Step) -> Tensor:
    """Whole channels at once."""
    step.options.only("noise_shape", None)
    return _dropped(step, (*[1] * (len(step.x.shape) - 1), step.x.shape[-1]))


def _dropped(step: Step, mask: tuple[int, ...]) -> Tensor:
    x, rate = step.x, step.options.number("rate")
    if not 0 <= rate < 1:
        raise step.options.wrong("rate", "a number from 0 to 1")
    if not rate:
        return x
    result = step.canvas.on("Dropout", x, rate)
    if x.name in step.canvas.zero_margins:  # for a prediction the Dropout is taken out
        step.canvas.zero_margins.add(result.name)
    step.dropouts.append(Dropout(step.canvas.nodes[-1].name, rate, Tensor("", mask, x.maps).stored))
    return result


def _nothing(*keys: str) -> Kind:
    def draw(step: Step) -> Tensor:
        step.options.idle(*keys)
        return step.x

    return Kind(draw, acts_in_training_only=True)


def _identity(step: Step) -> Tensor:
    return step.x


_FACTORS = ("factor", "value_range", "data_format", "rng_type")
_FILLED = (*_FACTORS, "fill_mode", "fill_value", "interpolation")

LAYERS: dict[str, Kind] = {
    "Dropout": Kind(_dropout),
    "SpatialDropout1D": Kind(_spatial_dropout),
    "SpatialDropout2D": Kind(_spatial_dropout),
    "SpatialDropout3D": Kind(_spatial_dropout),
    "Identity": Kind(_identity),
    "ActivityRegularization": _nothing("l1", "l2"),
    "AlphaDropout": _nothing("rate", "noise_shape"),
    "GaussianDropout": _nothing("rate"),
    "GaussianNoise": _nothing("stddev"),
    "StochasticDepth": _nothing("drop_path_rate", "survival_probability"),
    "RandomFlip": _nothing("mode", *_FACTORS),
    "RandomRotation": _nothing(*_FILLED),
    "RandomZoom": _nothing("height_factor", "width_factor", *_FILLED),
    "RandomTranslation": _nothing("height_factor", "width_factor", *_FILLED),
    "RandomShear": _nothing("x_factor", "y_factor", *_FILLED),
    "RandomHeight": _nothing(*_FILLED),
    "RandomWidth": _nothing(*_FILLED),
    "RandomPerspective": _nothing("scale", *_FILLED),
    "RandomElasticTransform": _nothing("scale", *_FILLED),
    "RandomErasing": _nothing("scale", *_FILLED),
    "RandomGaussianBlur": _nothing("kernel_size", "sigma", *_FACTORS),
    "RandomColorJitter": _nothing(
        *("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor"), *_FACTORS
    ),
    **{
        f"Random{kind}": _nothing(*_FACTORS)
        for kind in (
            *("Brightness", "Contrast", "ColorDegeneration", "Grayscale", "Hue", "Invert"),
            *("Posterization", "Saturation", "Sharpness"),
        )
    },
    "RandAugment": _nothing("num_ops", *_FILLED),
    "AugMix": _nothing("num_chains", "chain_depth", "alpha", "all_ops", *_FILLED),
    "CutMix": _nothing(*_FACTORS),
    "MixUp": _nothing("alpha", *_FACTORS),
}
