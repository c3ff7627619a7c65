"""What finetune.py measured, as Markdown tables. Reads its figures, runs nothing.

`results` is what goes to `--json`: `rounds` (each: name of a row -> figures), `missing` (name -> reason),
`rows` (all names, in order), `cores`, `cpu`, `flags`, `photos`, and where asked for `accuracy`, `gradient`.
"""

import statistics
from typing import Any

FULL, CONV5, HEAD = "full", "conv5", "head"
GROUPS = {
    FULL: "Full fine-tuning, batch 32, Adam: steps",
    CONV5: "`conv5_*` + `dense`, 6 epochs: whole process, from files to checkpoint",
    HEAD: "`dense` alone, 6 epochs: whole process, from files to checkpoint",
}
OURS, THEIRS = "birdsonnx", "PyTorch"
RANKS = ", ranks x 1 thread"
F32, BF16 = f"{FULL}: {OURS} float32, ONNX Runtime", f"{FULL}: {OURS} bf16"
F32_AUTO = f"{FULL}: {OURS} float32, by the faster one"
F32_RANKS, BF16_RANKS = F32 + RANKS, BF16 + RANKS
TORCH, TORCH_BF16 = f"{FULL}: {THEIRS} float32", f"{FULL}: {THEIRS} bf16 eager"
COMPILED = f"{FULL}: {THEIRS} bf16 torch.compile"
KERAS = f"{FULL}: Keras fit"
CONV5_TORCH, CONV5_TORCH_BF16 = f"{CONV5}: {THEIRS} float32", f"{CONV5}: {THEIRS} bf16"
HEAD_F32, HEAD_INT8 = f"{HEAD}: {OURS}, features float32", f"{HEAD}: {OURS}, features int8"
HEAD_KERAS = f"{HEAD}: Keras fit"

PEAK_GB = 2.5
"""At the most, of full fine-tuning in bf16."""
WITH_AMX = 2.0
"""Times as fast as PyTorch's bf16 there."""
LOST_PHOTOS = 2
"""That bf16 may name wrongly and float32 not, after training."""

Results = dict[str, Any]


def conv5(precision: str, features: str) -> str:
    """The name of one of our rows."""
    return f"{CONV5}: {OURS} {precision}, features {features}"


def is_as_named(name: str, figures: dict[str, Any]) -> bool:
    """Whether a row that says bf16 was trained in it, and did not fall back to float32."""
    return "bf16" not in name.partition(", features")[0] or str(figures["precision"]).startswith("bf16")


def speed(figures: dict[str, Any]) -> float:
    return float(figures.get("images_per_second") or 1 / figures["wall_s"])


def cpu(figures: dict[str, Any]) -> float:
    return float(figures.get("cpu_ms_per_image") or figures["process_cpu_s"])


def ratios(results: Results, ours: str, theirs: str) -> list[tuple[float, float]]:
    """By wall and by CPU time, how many times as fast as theirs ours is, in each round that has both."""
    return [
        (speed(found[ours]) / speed(found[theirs]), cpu(found[theirs]) / cpu(found[ours]))
        for found in results["rounds"]
        if ours in found and theirs in found
    ]


def median(results: Results, name: str, figure: str) -> float | None:
    """Of the rounds that have it."""
    values = [found[name][figure] for found in results["rounds"] if name in found]
    return statistics.median(values) if values else None


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def compared(results: Results) -> list[tuple[str, str, float | None]]:
    """Who is held against whom, and how many times as fast the first must be."""
    amx = "amx_bf16" in results["flags"]
    pairs: list[tuple[str, str, float | None]] = [
        (F32, TORCH, 1.15),
        (F32, KERAS, None),
        (F32_AUTO, F32, None),
        (F32_AUTO, TORCH, None),
        (F32_RANKS, F32, 0.95),
        (BF16, TORCH_BF16, WITH_AMX if amx else 1.3),
        (BF16, COMPILED, 1.15),
        (BF16, F32, 1.8),
        (BF16, TORCH, None),
        (BF16_RANKS, BF16, 0.95),
        (F32, TORCH_BF16, None),
        (F32, COMPILED, None),
        (HEAD_INT8, HEAD_KERAS, 10),
        (HEAD_F32, HEAD_KERAS, 10),
    ]
    best = fastest_conv5(results)
    for ours in (name for name in results["rows"] if name.startswith(f"{CONV5}: {OURS}")):
        is_best = ours == best
        pairs += [
            (ours, CONV5_TORCH, 4 if is_best else None),
            (ours, CONV5_TORCH_BF16, 1.5 * is_best or None),
        ]
    return [pair for pair in pairs if {*pair[:2]} <= {*results["rows"]}]


def fastest_conv5(results: Results) -> str | None:
    """Of our rows that were trained in bf16, which its bars are for; None where none was."""
    times = {
        name: median(results, name, "wall_s")
        for name in results["rows"]
        if name.startswith(f"{CONV5}: {OURS} bf16") and not _fell_back(results, name)
    }
    measured = {name: time for name, time in times.items() if time is not None}
    return min(measured, key=measured.__getitem__) if measured else None


def _fell_back(results: Results, name: str) -> bool:
    return any(not is_as_named(name, found[name]) for found in results["rounds"] if name in found)


def verdict(results: Results, ours: str, theirs: str, bar: float | None) -> str:
    """The bar, and whether it is met: by wall time."""
    if bar is None:
        return ""
    found = ratios(results, ours, theirs)
    if not found:
        return f"≥ {bar:g}: not measured"
    fallen = [name for name in (ours, theirs) if _fell_back(results, name)]
    if fallen:
        return f"≥ {bar:g}: not measured, float32 was trained"
    met = statistics.median(wall for wall, _ in found) >= bar
    return f"≥ {bar:g}: {'met' if met else '**missed**'}"


def markdown(results: Results) -> str:
    """All tables."""
    flags = results["flags"]
    has = ", ".join(
        f"{flag}: {'yes' if flag in flags else 'no'}" for flag in ("avx512_bf16", "amx_bf16", "amx_int8")
    )
    lines = [
        f"{results['cores']} cores of {results['cpu']} ({has}); {len(results['rounds'])} interleaved rounds; "
        f"{results['photos']} photos in the runs of 6 epochs.",
        *_software(results),
    ]
    for group, title in GROUPS.items():
        names = [name for name in results["rows"] if name.startswith(f"{group}: ")]
        if names:
            lines += ["", title, "", *_rows(results, group, names)]
    lines += ["", "| what | against | is faster by | by CPU time | bar |", "|---" * 5 + "|"]
    for ours, theirs, bar in compared(results):
        found = ratios(results, ours, theirs)
        times = [spread(list(each)) for each in zip(*found, strict=True)] or ["missing", ""]
        lines.append(f"| {ours} | {theirs} | {' | '.join(times)} | {verdict(results, ours, theirs, bar)} |")
    lines += [*_peak(results), *_accuracy(results), *_gradient(results), *_losses(results)]
    return "\n".join(lines)


def _software(results: Results) -> list[str]:
    found = {each["version"] for round_ in results["rounds"] for each in round_.values() if "version" in each}
    return [f"PyTorch {', '.join(sorted(found))}."] if found else []


def _rows(results: Results, group: str, names: list[str]) -> list[str]:
    """A table of one group: steps per second, or seconds of a process."""
    steps = group == FULL
    units = ("images/s", "CPU ms per image") if steps else ("seconds", "CPU seconds")
    keys = ("images_per_second", "cpu_ms_per_image") if steps else ("wall_s", "process_cpu_s")
    lines = [
        f"| what | trained in | {units[0]} | {units[1]} | peak GB of a process |",
        "|---" * 5 + "|",
    ]
    for name in names:
        what = name.removeprefix(f"{group}: ")
        values = [median(results, name, key) for key in keys]
        peak = median(results, name, "peak_gb")
        if peak is None:
            lines.append(f"| {what} | missing: {results['missing'].get(name, 'not measured')} | | | |")
            continue
        seen = dict.fromkeys(str(found[name]["precision"]) for found in results["rounds"] if name in found)
        precision = ", ".join(seen) if not _fell_back(results, name) else f"**{', '.join(seen)}**"
        engine = next((found[name].get("engine") for found in results["rounds"] if name in found), "")
        engine = f"; {engine}" if engine else ""
        lines.append(f"| {what} | {precision}{engine} | {values[0]:.1f} | {values[1]:.1f} | {peak:.2f} |")
    return lines


def _peak(results: Results) -> list[str]:
    peak = median(results, BF16, "peak_gb")
    if peak is None or _fell_back(results, BF16):
        return []
    verdict = "met" if peak <= PEAK_GB else "**missed**"
    return ["", f"Peak memory of {BF16}: {peak:.2f} GB; bar ≤ {PEAK_GB}: {verdict}."]


def _accuracy(results: Results) -> list[str]:
    found = results.get("accuracy")
    if not found:
        return []
    lines = ["", "| full fine-tuning over 6 epochs at 1e-5 | trained in | right photos | minutes |"]
    lines.append("|---" * 4 + "|")
    for name, row in found.items():
        lines.append(
            f"| {name} | {row['precision']} | {row['right']} of {row['tested']} | {row['wall_s'] / 60:.1f} |"
        )
    lost = found["fp32"]["right"] - found["bf16"]["right"]
    if str(found["bf16"]["precision"]).startswith("bf16"):
        verdict = "met" if abs(lost) <= LOST_PHOTOS else "**missed**"
    else:
        verdict = "not measured, float32 was trained"
    return [*lines, "", f"bf16 names {-lost:+d} photos rightly; bar within {LOST_PHOTOS}: {verdict}."]


def _gradient(results: Results) -> list[str]:
    found = results.get("gradient")
    if not found:
        return []
    lines = ["", "| gradients on one batch of 32 photos | cosine | worst layer | |", "|---" * 4 + "|"]
    for what, row in found.items():
        lines.append(f"| {what} | {row['whole']:.5f} | {row['worst']:.5f} | {row['layer']} |")
    return lines


def _losses(results: Results) -> list[str]:
    """That both sides train the same network on the same batches."""
    first = results["rounds"][0] if results["rounds"] else {}
    pairs = [(F32, TORCH), (conv5("float32", "float32"), CONV5_TORCH)]
    lines = []
    for ours, theirs in pairs:
        if ours in first and theirs in first:
            both = list(zip(first[ours]["losses"], first[theirs]["losses"], strict=False))[:3]
            worst = max(abs(one - two) / two for one, two in both)
            lines.append(f"Losses of the first {len(both)} steps, {ours} and {theirs}: {worst:.1e} apart.")
    return ["", *lines] if lines else []
