"""Where the lines, bars and ticks of a chart stand; the template draws them in the colours of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np
import numpy.typing as npt

from birdsonnx.inference.evaluating.reliability import Reliability

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 42
"""Margins of the plot area, for the labels of the axes."""

MOST_POINTS = 240
"""Of a line; more steps than these are drawn as their means."""

DECADES = 1.0
"""A loss that spans more of them is drawn on a logarithmic axis."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    kind: str
    """A class of the style sheet: its colour, and whether it is dashed."""
    points: str
    """Of an SVG polyline."""
    marks: tuple[tuple[float, float], ...] = ()
    """Where each value has a dot; none where they are too many."""


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Chart:
    title: str
    description: str
    """What one would see in it."""
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Axis:
    """Values onto a stretch of the picture."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        low, high, value = (
            log10(each) if self.logarithmic else each for each in (self.low, self.high, value)
        )
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> tuple[Tick, ...]:
        values = _decades(self.low, self.high) if self.logarithmic else _steps(self.low, self.high)
        return tuple(Tick(self.at(value), f"{value:g}") for value in values)


def loss_chart(
    train: Sequence[tuple[float, float]], test: Sequence[tuple[float, float]], tested_on: str
) -> Chart:
    """Loss over training; `(epoch, loss)` of each batch or epoch, and of each evaluation."""
    values = [loss for _, loss in (*train, *test)]
    low, high = min(values), max(values)
    logarithmic = low > 0 and log10(high / low) > DECADES
    y = _loss_axis(low, high, logarithmic)
    x = _epochs_axis([epoch for epoch, _ in (*train, *test)])
    lines = [_line("training photos", "train", _thinned(train), x, y, marked=len(train) <= 30)]
    if test:
        lines.append(_line(f"{tested_on} photos", "test", test, x, y, marked=len(test) <= 60))
    said = f"Training loss from {train[0][1]:.4g} to {train[-1][1]:.4g}"
    said += f"; test loss from {test[0][1]:.4g} to {test[-1][1]:.4g}." if test else "."
    label = "loss (logarithmic)" if logarithmic else "loss"
    return Chart("Loss", said, "epoch", label, x.ticks(), y.ticks(), tuple(lines))


def accuracy_chart(test: Sequence[tuple[float, float]], tested_on: str) -> Chart:
    """Test accuracy, `(epoch, accuracy)` of each evaluation."""
    values = [accuracy for _, accuracy in test]
    epoch, best = max(test, key=lambda point: (point[1], -point[0]))
    low = max(0.0, min(values) - 0.05)
    y = Axis(floor(low * 10) / 10, 1.0, HEIGHT - BOTTOM, TOP)
    x = _epochs_axis([each for each, _ in test])
    line = _line(f"{tested_on} photos", "test", test, x, y, marked=len(test) <= 60)
    said = (
        f"Test accuracy from {values[0]:.4f} to {values[-1]:.4f}; the best is {best:.4f}, in epoch {epoch:g}."
    )
    title = f"Accuracy: best {best:.4f}, epoch {epoch:g}"
    return Chart(title, said, "epoch", "accuracy", x.ticks(), y.ticks(), (line,))


def reliability_chart(found: Reliability) -> Chart:
    """Accuracy of the answers of each probability, against the diagonal of a model that knows itself."""
    x = Axis(0, 1, LEFT, WIDTH - RIGHT)
    y = Axis(0, 1, HEIGHT - BOTTOM, TOP)
    bars = tuple(
        Bar(
            x.at(each.low) + 1,
            y.at(each.accuracy),
            round(x.at(each.high) - x.at(each.low) - 2, 1),
            round(y.at(0) - y.at(each.accuracy), 1),
            f"probability {each.low:.2f} to {each.high:.2f}: {each.photos:,} photos, "
            f"{each.accuracy:.3f} of them right",
        )
        for each in found.bins
        if each.photos
    )
    diagonal = _line("a model that knows itself", "ideal", [(0, 0), (1, 1)], x, y, marked=False)
    kind = "surer than it is right" if found.excess > 0 else "less sure than it is right"
    said = f"Expected calibration error {found.expected_error:.4f}; on the whole the model is {kind}."
    labels = ("probability of the answer", "share of right answers")
    return Chart("Reliability", said, *labels, x.ticks(), y.ticks(), (diagonal,), bars)


def _line(
    name: str, kind: str, points: Sequence[tuple[float, float]], x: Axis, y: Axis, marked: bool
) -> Line:
    places = tuple((x.at(across), y.at(up)) for across, up in points)
    return Line(name, kind, " ".join(f"{left},{top}" for left, top in places), places if marked else ())


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    if len(points) <= MOST_POINTS:
        return points
    return [
        (float(x), float(y))
        for x, y in (piece.mean(0) for piece in np.array_split(np.array(points), MOST_POINTS))
    ]


def _epochs_axis(epochs: Sequence[float]) -> Axis:
    low, high = min(epochs), max(epochs)
    if high == low:
        low, high = low - 1, high + 1
    return Axis(low, high, LEFT + 8, WIDTH - RIGHT - 8)


def _loss_axis(low: float, high: float, logarithmic: bool) -> Axis:
    if logarithmic:
        return Axis(low / 1.25, high * 1.25, HEIGHT - BOTTOM, TOP, True)
    top = high * 1.05 if high > 0 else 1.0
    return Axis(min(0.0, low), top, HEIGHT - BOTTOM, TOP)


def _steps(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, 1, 2 or 5 of a power of ten apart."""
    rough = (high - low) / most
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 10, 100 …; with 2 and 5 between them where they are few."""
    between = (1, 2, 5) if log10(high / low) < 2.5 else (1,)
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in between]
    return [value for value in values if low <= value <= high]
