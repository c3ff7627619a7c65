"""Predictions as people read them."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from birdsonnx.inference.judging.verdicts import UNKNOWN, UNSURE
from birdsonnx.inference.keeping.summary import Summary

MOST_CLASSES = 20
"""Of a summary: so many of the classes that were named most often."""


def model_line(model: str | None, sha256: str | None) -> str:
    """Which model answered, as far as a result says."""
    if model is not None:
        return f"model: {model}"
    if sha256 is not None:
        return f"model: the one of SHA-256 {sha256[:16]}… (its name is not in the file)"
    return "model: unknown (the file does not say)"


def named_lines(summary: Summary) -> list[str]:
    """Each photo and its likeliest classes; of many photos how often each class was named."""
    if summary.lists_photos:
        width = max((len(entry["name"]) for entry in summary.shown), default=0)
        return [f"{entry['name']:<{width}}  {_said_of(entry)}" for entry in summary.shown]
    often = sorted(summary.counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{count:>7} x {name}" for name, count in often[:MOST_CLASSES]]
    if len(often) > MOST_CLASSES:
        lines.append(f"{'':>7}   and {len(often) - MOST_CLASSES} more classes")
    return lines


def _said_of(entry: Mapping[str, Any]) -> str:
    """The likeliest classes of a photo; behind what is said instead of a class, where something is."""
    classes = "   ".join(f"{name} {probability:.4f}" for name, probability in entry["top"])
    instead = f"not {entry['instead_of'][0]}: not on the list" if "instead_of" in entry else ""
    if "said" not in entry:
        return f"{classes} ({instead})" if instead else classes
    said = entry["said"]
    if entry["level"] not in (UNKNOWN, UNSURE):
        said = f"{entry['level']} {said} {entry['probability']:.4f}"
    return f"{said} ({'; '.join(filter(None, (classes, instead)))})"


def total_line(summary: Summary) -> str:
    """How many photos, how fast, where to."""
    where_to = f" -> {summary.output}" if summary.output else ""
    refused = f", {len(summary.refused)} refused" if summary.refused else ""
    what, each = f"{summary.photos} photos", "images"
    if summary.boxes is not None:
        what, each = f"{summary.boxes} boxes of {what}", "boxes"
    before = f", {summary.from_killed:,} of them before," if summary.from_killed else ""
    speed = f"{summary.images_per_second:.1f} {each}/s"
    return f"{what}{before} in {summary.seconds:.2f} s ({speed}){where_to}{refused}"


def species_lines(summary: Summary) -> list[str]:
    """How many answers the list of species changed, where there is one."""
    if summary.changed is None:
        return []
    return [f"the list of species changed {summary.changed} of {summary.named} answers"]


def sequence_lines(sequences: int | None, without_time: int, gap_s: float | None) -> list[str]:
    """How many sequences the photos were named in, if they were."""
    if sequences is None or gap_s is None:
        return []
    alone = f"; {without_time:,} photo{'s' * (without_time > 1)} without a time" if without_time else ""
    plural = "s" * (sequences != 1)
    return [f"{sequences:,} sequence{plural} of photos at most {gap_s:g} s apart, each named as one{alone}"]


def sorted_lines(summary: Summary, copies: bool) -> list[str]:
    """Where the photos were placed, if they were."""
    if summary.sorted is None:
        return []
    classes = f"{len(summary.counts)} folder{'s' * (len(summary.counts) > 1)}"
    how = "copies" if copies else "links"
    return [f"sorted {summary.photos} photos into {classes} in {summary.sorted} ({how})"]


def next_lines(summary: Summary, inputs: Sequence[str]) -> list[str]:
    """What to do with the predictions: see how right they are, where the photos' names say what they show;
    else look through them, where they are all of one folder."""
    if summary.output is None or not summary.named:
        return []
    if summary.says_classes:
        return [f"next: birdsonnx evaluate {shlex.quote(str(summary.output))}"]
    if len(inputs) != 1 or not Path(inputs[0]).is_dir():
        return []
    return [f"next: birdsonnx {shlex.join(['report', str(summary.output), '--photos', inputs[0]])}"]
