"""What was trained on what, as the page says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from birdsonnx.config.settings import Settings
from birdsonnx.model.metadata import Metadata
from birdsonnx.reporting.page.charts import Chart, accuracy_chart, loss_chart
from birdsonnx.reporting.page.source import Source
from birdsonnx.reporting.training_log import Curves
from birdsonnx.reporting.training_summary import learning

Facts = tuple[tuple[str, str], ...]
"""What, and what it is."""


@dataclass(frozen=True)
class EpochRow:
    """One epoch; None what nobody measured."""

    epoch: int
    learning_rate: float | None
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None


@dataclass(frozen=True)
class Training:
    """A run: its curves, its epochs one by one, and its settings."""

    charts: tuple[Chart, ...]
    epochs: tuple[EpochRow, ...]
    facts: Facts
    config: tuple[str, ...]
    """Lines of its JSON; none where only a checkpoint is left."""

    @property
    def best(self) -> EpochRow | None:
        """The first epoch of the highest test accuracy."""
        tested = [row for row in self.epochs if row.test_accuracy is not None]
        return max(tested, key=lambda row: (row.test_accuracy or 0.0, -row.epoch), default=None)


def training_of(source: Source, metadata: Metadata | None) -> Training | None:
    """By the logs of a run where they are, else by what its newest checkpoint remembers. None for a model
    that was never trained here."""
    history = () if metadata is None else metadata.history
    rows = _rows(history, source.curves)
    if not rows:
        return None
    train, test = _points(rows, source.curves)
    tested_on = (source.curves and source.curves.tested_on) or "test"
    charts = []
    if train:
        charts.append(loss_chart(train, test, tested_on))
    tested = [(float(row.epoch), row.test_accuracy) for row in rows if row.test_accuracy is not None]
    if tested:
        charts.append(accuracy_chart(tested, tested_on))
    facts = (*_of_settings(source.settings), *_of_time(source.curves))
    return Training(tuple(charts), rows, facts, source.config)


def _rows(history: tuple[dict[str, Any], ...], curves: Curves | None) -> tuple[EpochRow, ...]:
    if curves is None:
        return tuple(_of_history(entry) for entry in history)
    known: Mapping[int, dict[str, Any]] = {entry["epoch"]: entry for entry in history}
    tests = {int(row[1]): (float(row[2]), float(row[3])) for row in curves.test}
    rows = []
    for epoch in sorted({int(epoch) for epoch in curves.train[:, 1]}):
        losses = curves.train[curves.train[:, 1] == epoch, 3]
        entry = known.get(epoch, {})
        loss, accuracy = tests.get(epoch, (None, None))
        rows.append(
            EpochRow(
                epoch,
                entry.get("learning_rate"),
                entry.get("train_loss", float(losses.mean())),
                loss,
                accuracy,
            )
        )
    return tuple(rows)


def _of_history(entry: dict[str, Any]) -> EpochRow:
    names = ("learning_rate", "train_loss", "test_loss", "test_accuracy")
    return EpochRow(entry["epoch"], *(entry.get(name) for name in names))


Points = list[tuple[float, float]]


def _points(rows: tuple[EpochRow, ...], curves: Curves | None) -> tuple[Points, Points]:
    """Losses in training, by batch where the logs have them, and in evaluation; those that are numbers."""
    if curves is not None:
        batches = curves.train[:, 2].max()
        place = curves.train[:, 1] - 1 + curves.train[:, 2] / batches
        train = list(zip(place.tolist(), curves.train[:, 3].tolist(), strict=True))
    else:
        train = [(float(row.epoch), row.train_loss) for row in rows if row.train_loss is not None]
    test = [(float(row.epoch), row.test_loss) for row in rows if row.test_loss is not None]
    return [point for point in train if np.isfinite(point[1])], [
        point for point in test if np.isfinite(point[1])
    ]


def _of_settings(settings: Settings | None) -> Facts:
    if settings is None:
        return ()
    data = settings.data
    return (
        ("Training photos", _tagged(data.input_path, data.training_tag)),
        ("Test photos", _tagged(data.test_folder, data.test_tag)),
        ("Starts from", settings.checkpoints.load or "fresh weights"),
        *((title.capitalize(), line) for title, line in learning(settings).items()),
        ("Batch", f"{data.batch_size} photos"),
        ("Seed", str(settings.birdsonnx.seed)),
    )


def _tagged(folder: str | None, tag: str | None) -> str:
    if folder is None:
        return "none"
    return folder if tag is None else f"{folder}, folders {tag}"


def _of_time(curves: Curves | None) -> Facts:
    if curves is None:
        return ()
    seconds = float(max(curves.train[-1, 0], curves.test[-1, 0] if len(curves.test) else 0.0))
    return (("Time", spoken_time(seconds)),)


def spoken_time(seconds: float) -> str:
    """`2.6 s`, `3 min 12 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
