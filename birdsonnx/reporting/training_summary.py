"""The summary of a training: what is about to happen, as pairs of a title and a line."""

from typing import Any

from birdsonnx.config.loss import BALANCED
from birdsonnx.config.settings import Settings
from birdsonnx.config.transforms import RandomTransform
from birdsonnx.images.folders import LabelledFolder
from birdsonnx.model.weight_names import scope_of
from birdsonnx.reporting.printable import listed
from birdsonnx.training.audience import Facts

PRECISIONS = {
    "fp32": "",
    "fp16": " (float16)",
    "bf16": " (computed in bf16)",
    "int8": " (computed in int8)",
}
"""How features are kept, as it is said after their place."""


def summary(facts: Facts) -> dict[str, str]:
    """The lines by title, in their order."""
    model, settings = facts.model, facts.settings
    return {
        "network": f"{model.where}: {len(model.metadata.layers)} layers with weights, "
        f"{model.num_classes} classes, input {' x '.join(map(str, model.input_size))}",
        "preprocessing": model.metadata.preprocessing.name,
        "parameters": _parameters(facts),
        **learning(settings),
        "loss": _loss(settings, _range_of(facts)),
        "train": f"{len(facts.train.photos):,} photos of {len(facts.train.classes)} classes "
        f"in {facts.train.where}{_left_out(facts.train)}",
        "test": "none" if facts.test is None else f"{len(facts.test.photos):,} photos in {facts.test.where}",
        "features": _features(facts),
        "ranks": f"{facts.ranks} x {facts.threads} thread{'s' * (facts.threads > 1)}, "
        f"{len(facts.train.photos) / facts.ranks:,.0f} photos each",
        "batch": f"{settings.data.batch_size} over all ranks, "
        f"{settings.data.batch_size / facts.ranks:g} per rank",
        "epochs": f"{settings.num_epochs}" + (f", {facts.epochs_done} done" if facts.epochs_done else ""),
        **_where_it_matters(facts),
    }


def learning(settings: Settings) -> dict[str, str]:
    """How weights are changed: the lines that a config alone decides."""
    return {
        "optimizer": _optimizer(settings),
        "schedule": _schedule(settings),
        "loss": _loss(settings),
    }


def _where_it_matters(facts: Facts) -> dict[str, str]:
    """Lines for what only some trainings have."""
    data, own = facts.settings.data, facts.settings.birdsonnx
    features = not facts.choice.boundary.is_photo
    lines = {}
    if facts.model.metadata.dropout:
        lines["dropout"] = _dropout(facts)
    if data.preload and features:
        lines["preload"] = "changes nothing: features are kept, each photo is read once"
    if facts.precision:
        lines["precision"] = facts.precision
    if own.exchange_precision == "bf16":
        alone = facts.ranks == 1
        lines["exchange"] = "bf16 changes nothing: one rank" if alone else "gradients between hosts in bf16"
    if own.feature_precision != "fp32" and not features:
        lines["feature precision"] = f"{own.feature_precision} changes nothing: no features are kept"
    if data.augments:
        steps = [step for step in data.transforms or () if isinstance(step, RandomTransform)]
        drawn = ", ".join(f"{name} {value:g}" for step in steps for name, value in step.as_json().items())
        lines["augmentation"] = drawn + _views(own.views, features)
    return lines


def _views(views: int | None, features: bool) -> str:
    if views is None:
        return ""
    if not features:
        return f"; views {views} changes nothing: no features are kept"
    return f"; {views} view{'s' * (views > 1)} of each training photo, one per epoch"


def _parameters(facts: Facts) -> str:
    counts = facts.model.metadata.parameters
    statistics = f" (and {counts.statistics:,} BatchNorm statistics)" if counts.statistics else ""
    return (
        f"{counts.total - counts.statistics:,} in total{statistics}, {facts.trained_weights:,} trainable: "
        f"{listed(facts.model.metadata.trainable)}"
    )


def _optimizer(settings: Settings) -> str:
    optimizer = settings.optimizer
    return f"{optimizer.type} ({_pairs(optimizer.model_dump(exclude={'type', 'lr_scheduler'}))})"


def _schedule(settings: Settings) -> str:
    schedule = settings.optimizer.lr_scheduler
    if schedule is None:
        return "constant"
    return f"{schedule.type} ({_pairs(schedule.model_dump(exclude={'type', 'verbose'}))}), per epoch"


def _range_of(facts: Facts) -> str:
    """The smallest and the largest class weight, and whose they are."""
    weight = facts.loss.weight
    ends = (int(weight.argmin()), int(weight.argmax()))
    return " to ".join(f"{weight[label]:.3g} ({facts.train.classes[label]})" for label in ends)


def _loss(settings: Settings, extent: str = "") -> str:
    """Args:
    extent: of balanced weights, which follow from the photos.
    """
    loss, own = settings.loss, settings.birdsonnx
    name = "negative log-likelihood" if loss.function == "NLL" else f"gamma {loss.gamma:g}"
    weights = "" if loss.weight is None else f"{len(loss.weight)} class weights"
    if loss.weight == BALANCED:
        weights = f"balanced class weights{f' from {extent}' * bool(extent)}"
    extras = [
        weights,
        f"label smoothing {own.label_smoothing:g}" if own.label_smoothing else "",
        f"gradient norm at most {own.clip_norm:g}" if own.clip_norm else "",
    ]
    return ", ".join([f"{loss.function} ({name})", *filter(None, extras)])


def _left_out(folder: LabelledFolder) -> str:
    return f"; {folder.left_out:,} more there are in neither set" if folder.left_out else ""


def _features(facts: Facts) -> str:
    """Which features are kept, how large they are and where, and since when it is these."""
    boundary, choice = facts.choice.boundary, facts.choice
    since = f"; the fastest place, as measured on {choice.measured_on}" if choice.measured_on else ""
    if boundary.is_photo or facts.cache is None:
        return f"none; every epoch decodes the photos and runs the whole network{since}"
    precision = facts.settings.birdsonnx.feature_precision
    size = boundary.size * (2 if precision == "fp16" else 4)
    views = facts.settings.birdsonnx.views or 1
    photos = len(facts.train.photos) * views + (len(facts.test.photos) if facts.test else 0)
    return (
        f"{listed(boundary.layers, 3)}: {size:,} bytes per photo, {size * photos / 1e9:.2f} GB in "
        f"{facts.cache}{PRECISIONS[precision]}{since}"
    )


def _dropout(facts: Facts) -> str:
    acting = ", ".join(f"{scope_of(each.node)} {each.rate:g}" for each in facts.dropouts) or "none"
    frozen = len(facts.model.metadata.dropout) - len(facts.dropouts)
    return acting + (f"; {frozen} before frozen layers, where nothing is dropped" if frozen else "")


def _pairs(content: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}".lower()
        for key, value in content.items()
    )
