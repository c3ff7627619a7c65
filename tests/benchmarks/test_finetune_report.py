"""Tables of training from made-up rounds."""

from typing import Any

import pytest

from benchmarks import finetune_report as report
from benchmarks.steps import speeds

CONV5_BF16 = report.conv5("bf16", "int8")
FELL_BACK = "fp32: this CPU has no instructions for bfloat16"


def full(speed: float, cpu_ms: float, precision: str, peak_gb: float = 2.0) -> dict[str, Any]:
    return {
        "images_per_second": speed,
        "cpu_ms_per_image": cpu_ms,
        "precision": precision,
        "peak_gb": peak_gb,
        "losses": [2.0, 1.0, 0.5],
    }


def whole(wall_s: float, precision: str) -> dict[str, Any]:
    return {
        "wall_s": wall_s,
        "process_cpu_s": 2 * wall_s,
        "precision": precision,
        "peak_gb": 1.0,
        "losses": [],
    }


@pytest.fixture
def results() -> dict[str, Any]:
    """Three rounds on a machine that slows down; PyTorch cannot compile, and one round lacks the ranks."""
    found = [
        {
            report.F32: full(12 / slow, 160, "fp32"),
            report.BF16: full(30 / slow, 64, "bf16, by oneDNN 3.2.0"),
            report.TORCH_BF16: full((20, 25, 24)[slow - 1] / slow, 80, "bf16 autocast"),
            CONV5_BF16: whole(20 * slow, "bf16, by oneDNN 3.2.0"),
            report.conv5("bf16", "float32"): whole(30 * slow, "bf16, by oneDNN 3.2.0"),
            report.CONV5_TORCH: whole(100 * slow, "float32"),
            **({} if slow == 1 else {report.BF16_RANKS: full(29 / slow, 66, "bf16, by oneDNN 3.2.0")}),
        }
        for slow in (1, 2, 3)
    ]
    return {
        "cores": 2,
        "cpu": "a processor",
        "flags": ["avx512_bf16"],
        "photos": 480,
        "rows": [*found[1], report.COMPILED],
        "missing": {report.COMPILED: "no g++"},
        "rounds": found,
    }


def fallen(results: dict[str, Any], name: str) -> None:
    for found in results["rounds"]:
        found[name]["precision"] = FELL_BACK


def test_steps_that_warm_up_are_not_counted() -> None:
    figures = {"times_s": [10.0, 12.0, 13.0, 14.0], "cpu_s": [9.0, 12.0, 14.0, 15.0]}

    assert speeds(figures, 32, 2) == pytest.approx({"images_per_second": 32, "cpu_ms_per_image": 46.875})


def test_a_ratio_is_that_of_each_round(results: dict[str, Any]) -> None:
    text = report.markdown(results)

    assert f"| {report.BF16} | {report.TORCH_BF16} | 1.25 (1.20 to 1.50) | 1.25 (1.25 to 1.25) |" in text
    assert f"| {report.BF16_RANKS} | {report.BF16} | 0.97 (0.97 to 0.97) |" in text
    assert "≥ 1.3: **missed**" in text
    assert "≥ 1.8: met" in text


def test_a_fast_process_is_one_of_few_seconds(results: dict[str, Any]) -> None:
    assert f"| {CONV5_BF16} | {report.CONV5_TORCH} | 5.00 (5.00 to 5.00) |" in report.markdown(results)


def test_what_cannot_be_measured_says_why(results: dict[str, Any]) -> None:
    text = report.markdown(results)

    assert "| PyTorch bf16 torch.compile | missing: no g++ |" in text
    assert f"| {report.BF16} | {report.COMPILED} | missing |  | ≥ 1.15: not measured |" in text


def test_float32_never_counts_as_bf16(results: dict[str, Any]) -> None:
    fallen(results, report.BF16)
    text = report.markdown(results)

    assert f"**{FELL_BACK}**" in text
    assert "≥ 1.3: not measured, float32 was trained" in text
    assert "≥ 0.95: not measured, float32 was trained" in text
    assert "Peak memory" not in text


def test_bars_of_conv5_are_for_the_fastest_that_was_trained_in_bf16(results: dict[str, Any]) -> None:
    assert report.fastest_conv5(results) == CONV5_BF16
    fallen(results, CONV5_BF16)
    assert report.fastest_conv5(results) == report.conv5("bf16", "float32")
    fallen(results, report.conv5("bf16", "float32"))
    assert report.fastest_conv5(results) is None
    assert "≥ 4" not in report.markdown(results)


def test_features_in_bf16_are_no_training_in_it() -> None:
    name = report.conv5("float32", "bf16")

    assert report.is_as_named(name, whole(1, "fp32"))
    assert not report.is_as_named(CONV5_BF16, whole(1, "fp32"))


@pytest.mark.parametrize(("flags", "bar"), [([], "≥ 1.3"), (["amx_bf16"], "≥ 2")])
def test_the_bar_is_higher_where_amx_is(results: dict[str, Any], flags: list[str], bar: str) -> None:
    results["flags"] = flags
    text = report.markdown(results)

    assert f"{bar}: **missed**" in text
    assert f"amx_bf16: {'yes' if flags else 'no'}" in text


@pytest.mark.parametrize(
    ("right", "precision", "words"),
    [
        (234, "bf16, by oneDNN 3.2.0", "-2 photos rightly; bar within 2: met"),
        (233, "bf16, by oneDNN 3.2.0", "-3 photos rightly; bar within 2: **missed**"),
        (236, FELL_BACK, "+0 photos rightly; bar within 2: not measured"),
    ],
)
def test_accuracy(results: dict[str, Any], right: int, precision: str, words: str) -> None:
    row = {"tested": 240, "wall_s": 60.0}
    results["accuracy"] = {
        "fp32": {**row, "right": 236, "precision": "fp32"},
        "bf16": {**row, "right": right, "precision": precision},
    }

    assert words in report.markdown(results)
