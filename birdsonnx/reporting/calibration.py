"""What calibrating found, as lines and as JSON."""

from typing import Any

from birdsonnx.inference.calibrating.calibration import Calibration, Figures, Outcome
from birdsonnx.inference.calibrating.knowing import Known
from birdsonnx.inference.calibrating.thresholds import FEWEST, Thresholds


def as_json(outcome: Outcome, found: Calibration) -> dict[str, Any]:
    """Figures of the whole, and `reliability`: of each bin of probabilities that has photos its bounds,
    photos, accuracy and mean probability."""
    limits = found.thresholds
    return {
        "output": str(outcome.output),
        "photos": found.photos,
        "temperature": found.temperature,
        "temperature_at_bound": found.at_bound,
        "total_temperature": outcome.total,
        "changed": outcome.changed,
        "before": found.before.as_json(),
        "after": found.after.as_json(),
        "known": None if outcome.known is None else outcome.known.as_json(),
        "thresholds": None if limits is None else {**limits.as_json(), "values": list(limits.values)},
        "reliability": {"before": _bins(found.before), "after": _bins(found.after)},
        "notes": _notes(outcome, found),
    }


def _bins(figures: Figures) -> list[dict[str, float]]:
    return [vars(each) for each in figures.reliability.bins if each.photos]


def lines(outcome: Outcome, found: Calibration) -> list[str]:
    """The same for people, as a small table and what is to be said of it."""
    table = [f"{'':<7}{'loss':>10}{'calibration error':>19}{'accuracy':>10}"]
    for name, each in (("before", found.before), ("after", found.after)):
        error = each.reliability.expected_error
        table.append(f"{name:<7}{each.loss:>10.4f}{error:>19.4f}{each.accuracy:>10.4f}")
    total = "" if outcome.total == found.temperature else f", with the earlier one {outcome.total:.4f}"
    table.append(f"temperature {found.temperature:.4f}{total}, by {found.photos} photos; {outcome.changed}")
    if found.thresholds is not None:
        table += _threshold_lines(found.thresholds)
    if outcome.known is not None:
        table.append(_known_line(outcome.known))
    return table + [f"note: {note}" for note in _notes(outcome, found)]


def _notes(outcome: Outcome, found: Calibration) -> list[str]:
    return found.notes() + ([] if outcome.known is None else outcome.known.notes())


def _known_line(known: Known) -> str:
    by = f"by {known.means.photos:,} training photos; " if known.means.photos else ""
    return (
        f"known: {by}the threshold {known.threshold:.4f} keeps {known.kept:.4f} of the {known.photos:,} "
        "photos; one below it shows none of the classes"
    )


def _threshold_lines(limits: Thresholds) -> list[str]:
    classes = len(limits.values)
    pooled = f"{limits.pooled:.4f}" if limits.pooled < 1 else "there is none"
    others = f", {classes - limits.own} that of all photos ({pooled}), with fewer than {FEWEST} answers each"
    never = f"; {limits.never} are never named, since too few of their answers were right"
    right = "" if limits.right is None else f", {limits.right:.4f} of them rightly"
    return [
        f"thresholds for {limits.precision:g} of right answers: {limits.own} of {classes} classes have their "
        f"own{others if limits.own < classes else ''}{never if limits.never else ''}",
        f"with them {limits.kept:.4f} of these photos are named{right}",
    ]
