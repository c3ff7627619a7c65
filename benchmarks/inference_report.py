"""What inference.py measured, as Markdown tables and a plot. Reads its figures, runs nothing.

`results` is what goes to `--json`: `contenders` (name -> group, settings, and why it is missing), `accuracy`
(name -> top_1, agreement) and `rounds` (each name -> figures of that round).
"""

import statistics
from pathlib import Path
from typing import Any

FP32, INT8, INT8_VNNI = "birdsonnx fp32", "birdsonnx int8", "birdsonnx int8 without AMX"
"""Without more words: by ONNX Runtime, the default."""
FP32_OV, INT8_OV = "birdsonnx fp32 by OpenVINO", "birdsonnx int8 by OpenVINO"
BF16 = "birdsonnx bf16 by OpenVINO"
INT8_OV_VNNI = "birdsonnx int8 by OpenVINO without AMX"
OURS = (FP32, FP32_OV, BF16, INT8, INT8_OV, INT8_VNNI, INT8_OV_VNNI)
NNCF, NNCF_VNNI = "OpenVINO NNCF int8", "OpenVINO NNCF int8 without AMX"
OPENVINO_BF16, COMPILED_BF16 = "OpenVINO bf16", "PyTorch compile bf16"
HELD_TO_VNNI = (INT8_VNNI, INT8_OV_VNNI, NNCF_VNNI)
FILES = {
    name: name.replace("birdsonnx", "birdsonnx predict") for name in (FP32, FP32_OV, BF16, INT8, INT8_OV)
}
"""From files to a closed HDF5 file, for each engine and precision."""
GROUPS = ("fp32", "bf16", "int8")

BARS = {
    (FP32, "OpenVINO f32"): 1.05,
    (FP32, "tf2onnx graph, newest onnxruntime"): 1.05,
    (FP32, "TensorFlow tf.function"): 1.2,
    (FP32, "PyTorch eager f32"): 1.5,
    (BF16, OPENVINO_BF16): 1.1,
    (BF16, COMPILED_BF16): 1.2,
    (INT8_OV, NNCF): 1.05,
    (INT8_OV_VNNI, NNCF_VNNI): 1.05,
    (INT8, "tf2onnx graph, newest onnxruntime"): 3.2,
    (INT8, "tf2onnx graph, birdsonnx' onnxruntime"): 3.2,
    **{(files, name): 0.95 for name, files in FILES.items()},
}
"""How many times as fast the first must be as the second."""
WITH_AMX = {(INT8_OV, NNCF): 1.1}
"""The same where the CPU has AMX units."""

SAME_NETWORK = 0.995
"""Agreement with birdsonnx fp32 below which a float32 peer cannot hold the same weights."""
ACCURACY = {BF16: (0.99, 0.005), INT8: (0.97, 0.01), INT8_OV: (0.97, 0.01)}
"""Least agreement with birdsonnx fp32, and the most top-1 that may be lost against it."""

Results = dict[str, Any]


def ratio(results: Results, ours: str, theirs: str) -> tuple[float, float, float] | None:
    """Median, least and greatest of each round's own ratio of images/s; None where no round has both."""
    found = [
        figures[ours]["images_per_second"] / figures[theirs]["images_per_second"]
        for figures in results["rounds"]
        if ours in figures and theirs in figures
    ]
    return (statistics.median(found), min(found), max(found)) if found else None


def median(results: Results, name: str, figure: str) -> float | None:
    """Of the rounds that have it."""
    found = [figures[name][figure] for figures in results["rounds"] if name in figures]
    return statistics.median(found) if found else None


def compared(results: Results) -> list[tuple[str, str]]:
    """Who is held against whom: each of ours against the rows of its group, and against others where it has a
    bar; those held to VNNI against each other."""
    groups = {name: contender["group"] for name, contender in results["contenders"].items()}
    pairs = []
    for ours in (name for name in OURS if name in groups):
        rivals = [
            name for name in groups if (ours in HELD_TO_VNNI) == (name in HELD_TO_VNNI) and name != ours
        ]
        seen = {ours for ours, _ in pairs}  # two of ours meet once
        pairs += [
            (ours, name)
            for name in rivals
            if name not in seen and (groups[name] == groups[ours] or (ours, name) in BARS)
        ]
    return [*pairs, *((files, name) for name, files in FILES.items() if name in groups)]


def bar_of(results: Results, ours: str, theirs: str) -> float | None:
    """How many times as fast the first must be."""
    has_amx = any(name in results["contenders"] for name in HELD_TO_VNNI)
    return (has_amx and WITH_AMX.get((ours, theirs))) or BARS.get((ours, theirs))


def markdown(results: Results) -> str:
    """Everything that README shows."""
    return "\n\n".join(["\n".join(_speeds(results)), "\n".join(_ratios(results)), *_remarks(results)])


def _speeds(results: Results) -> list[str]:
    lines = [
        "| what | best settings | images/s | loaded in | peak memory | top-1 | agrees with birdsonnx fp32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, contender in results["contenders"].items():
        speed = median(results, name, "images_per_second")
        if speed is None:
            lines.append(f"| {name} | missing: {contender.get('missing', 'no round')} | | | | | |")
            continue
        load_s, memory = median(results, name, "load_s"), median(results, name, "peak_rss_mb")
        accuracy = results["accuracy"].get(name)
        settings = "; ".join(filter(None, [contender["settings"], contender.get("missing")]))
        answers = f"{accuracy['top_1']:.4f} | {accuracy['agreement']:.4f}" if accuracy else " | "
        lines.append(f"| {name} | {settings} | {speed:.1f} | {load_s:.1f} s | {memory:.0f} MB | {answers} |")
    for of, name in FILES.items():
        if of not in results["contenders"]:
            continue
        speed, wall_s = median(results, name, "images_per_second"), median(results, name, "wall_s")
        if speed is None:
            lines.append(f"| {name}, files to closed HDF5 | missing | | | | | |")
        else:
            what = f"{results['files']} JPEG files, whole process {wall_s:.1f} s"
            lines.append(f"| {name}, files to closed HDF5 | {what} | {speed:.1f} | | | | |")
    return lines


def _ratios(results: Results) -> list[str]:
    lines = ["| what | against | is faster by | bar |", "|---|---|---|---|"]
    for ours, theirs in compared(results):
        found = ratio(results, ours, theirs)
        bar = bar_of(results, ours, theirs)
        if found is None:
            lines.append(
                f"| {ours} | {theirs} | missing | {'' if bar is None else f'≥ {bar}: not measured'} |"
            )
            continue
        middle, low, high = found
        lines.append(
            f"| {ours} | {theirs} | {middle:.2f} ({low:.2f} to {high:.2f}) | "
            f"{'' if bar is None else f'≥ {bar}: {_met(middle >= bar)}'} |"
        )
    accuracy = results["accuracy"]
    for name, (least, most_lost) in ACCURACY.items():
        if FP32 not in accuracy or name not in accuracy:
            continue
        gain = accuracy[name]["top_1"] - accuracy[FP32]["top_1"]
        agreement = accuracy[name]["agreement"]
        lines += [
            f"| top-1 of {name} | {FP32} | {gain:+.4f} | ≥ -{most_lost}: {_met(gain >= -most_lost)} |",
            f"| answers of {name} | {FP32} | {agreement:.4f} the same | "
            f"≥ {least}: {_met(agreement >= least)} |",
        ]
    return lines


def _met(reached: bool) -> str:
    return "met" if reached else "**missed**"


def _remarks(results: Results) -> list[str]:
    """Who is ahead of us, and whose figures must not be compared."""
    remarks = []
    for ours in OURS:
        ahead = [
            f"{theirs} ({1 / found[0]:.2f} x)"
            for one, theirs in compared(results)
            if one == ours and (found := ratio(results, ours, theirs)) and found[0] < 1
        ]
        if ahead:
            remarks.append(f"Ahead of {ours}: {', '.join(ahead)}.")
    for name, accuracy in results["accuracy"].items():
        if results["contenders"][name]["group"] == "fp32" and accuracy["agreement"] < SAME_NETWORK:
            remarks.append(
                f"**{name} is not the same network**: it agrees with {FP32} on only "
                f"{accuracy['agreement']:.1%} of the photos, so its speed says nothing."
            )
    return remarks


def plot(results: Results, path: Path) -> None:
    """Horizontal bars of images/s in three groups; lines show the range over the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = []  # from bottom to top
    for group in reversed(GROUPS):
        names = [name for name, contender in results["contenders"].items() if contender["group"] == group]
        speeds = {name: median(results, name, "images_per_second") for name in names}
        found = {name: speed for name, speed in speeds.items() if speed is not None}
        entries += [(group, name, found[name]) for name in sorted(found, key=lambda name: found[name])]
    colors = dict(zip(GROUPS, ("#4878a8", "#8a6bb0", "#3f8f5b"), strict=True))
    figure, axis = pyplot.subplots(figsize=(10, 1.6 + 0.36 * len(entries)))
    ticks: list[float] = []
    position = 0.0
    for index, (group, name, speed) in enumerate(entries):
        if index and group != entries[index - 1][0]:
            position += 0.6
        rounds = [figures[name]["images_per_second"] for figures in results["rounds"] if name in figures]
        axis.barh(
            position,
            speed,
            xerr=[[speed - min(rounds)], [max(rounds) - speed]],
            color=colors[group],
            alpha=1.0 if name in OURS else 0.5,
            error_kw={"ecolor": "#333333", "elinewidth": 1},
        )
        axis.annotate(
            f"{speed:.0f}",
            (max(rounds), position),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
        ticks.append(position)
        position += 1
    axis.set_yticks(ticks, [name for _, name, _ in entries])
    for label, (_, name, _) in zip(axis.get_yticklabels(), entries, strict=True):
        label.set_fontweight("bold" if name in OURS else "normal")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colors[group]) for group in GROUPS]
    axis.legend(handles, GROUPS, loc="lower right", frameon=False)
    axis.margins(x=0.1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set(xlabel="images/s (median; lines: all rounds)")
    axis.set_title(f"ResNet50, 224 x 224, {results['cores']} cores of {results['cpu']}", fontsize=11)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
