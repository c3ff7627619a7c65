"""Tables from made-up rounds."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import inference_report as report

OPENVINO, TORCH = "OpenVINO f32", "PyTorch eager f32"


def figures(speed: float) -> dict[str, float]:
    return {"images_per_second": speed, "load_s": 1.0, "peak_rss_mb": 400.0}


@pytest.fixture
def results() -> dict[str, Any]:
    """Three rounds on a machine that slows down; PyTorch is not installed."""
    rows = {report.FP32: "fp32", OPENVINO: "fp32", TORCH: "fp32", report.INT8: "int8"}
    return {
        "cores": 2,
        "cpu": "a processor",
        "files": 2000,
        "contenders": {
            name: {"group": group, "settings": "batch 4", "missing": "no torch" * (name == TORCH)}
            for name, group in rows.items()
        },
        "accuracy": {
            report.FP32: {"top_1": 0.99, "agreement": 1.0},
            OPENVINO: {"top_1": 0.99, "agreement": 1.0},
            report.INT8: {"top_1": 0.985, "agreement": 0.96},
        },
        "rounds": [
            {report.FP32: figures(40), OPENVINO: figures(50), report.INT8: figures(120)},
            {report.FP32: figures(30), OPENVINO: figures(25), report.INT8: figures(90)},
            {report.FP32: figures(20), OPENVINO: figures(18), report.INT8: figures(60),
             report.FILES[report.INT8]: {"images_per_second": 58.0, "wall_s": 35.0}},
        ],
    }  # fmt: skip


def test_a_ratio_is_the_median_of_each_rounds_own(results: dict[str, Any]) -> None:
    assert report.ratio(results, report.FP32, OPENVINO) == pytest.approx((20 / 18, 0.8, 1.2))


def test_a_round_that_lacks_one_side_has_no_ratio(results: dict[str, Any]) -> None:
    assert report.ratio(results, report.FILES[report.INT8], report.INT8) == pytest.approx((58 / 60,) * 3)
    assert report.ratio(results, report.FP32, TORCH) is None


def test_the_table_shows_bars_and_what_is_missing(results: dict[str, Any]) -> None:
    text = report.markdown(results)

    assert f"| {TORCH} | missing: no torch |" in text
    assert f"| {report.FP32} | {OPENVINO} | 1.11 (0.80 to 1.20) | ≥ 1.05: met |" in text
    assert f"| {report.FP32} | {TORCH} | missing | ≥ 1.5: not measured |" in text
    assert "| -0.0050 | ≥ -0.01: met |" in text
    assert "0.9600 the same | ≥ 0.97: **missed** |" in text
    assert "Ahead of" not in text
    assert "is not the same network" not in text


def test_nothing_is_compared_twice(results: dict[str, Any]) -> None:
    results["contenders"]["OpenVINO NNCF int8"] = {"group": "int8", "settings": "batch 4"}

    pairs = report.compared(results)

    assert (report.INT8, "OpenVINO NNCF int8") in pairs
    assert len(pairs) == len(set(pairs))


def test_those_held_to_vnni_are_compared_with_each_other(results: dict[str, Any]) -> None:
    for name in (report.NNCF, report.NNCF_VNNI, report.INT8_VNNI, report.INT8_OV_VNNI):
        results["contenders"][name] = {"group": "int8", "settings": "batch 4"}

    pairs = report.compared(results)

    assert (report.INT8_VNNI, report.NNCF_VNNI) in pairs
    assert (report.INT8_OV_VNNI, report.NNCF_VNNI) in pairs
    assert [ours for ours, theirs in pairs if theirs == report.NNCF] == [report.INT8]
    assert not {(report.INT8, report.NNCF_VNNI), (report.INT8, report.INT8_VNNI)} & {*pairs}


def test_two_of_ours_meet_once(results: dict[str, Any]) -> None:
    results["contenders"][report.INT8_OV] = {"group": "int8", "settings": "batch 8"}

    pairs = report.compared(results)

    assert ((report.INT8, report.INT8_OV) in pairs) != ((report.INT8_OV, report.INT8) in pairs)


def test_with_amx_more_is_asked_for(results: dict[str, Any]) -> None:
    assert report.bar_of(results, report.INT8_OV, report.NNCF) == 1.05
    results["contenders"][report.INT8_OV_VNNI] = {"group": "int8", "settings": "batch 4"}
    assert report.bar_of(results, report.INT8_OV, report.NNCF) == 1.1
    assert report.bar_of(results, report.INT8_OV_VNNI, report.NNCF_VNNI) == 1.05


def test_bf16_is_held_to_its_own_accuracy(results: dict[str, Any]) -> None:
    results["contenders"][report.BF16] = {"group": "bf16", "settings": "batch 8"}
    results["accuracy"][report.BF16] = {"top_1": 0.98, "agreement": 0.995}

    text = report.markdown(results)

    assert f"| top-1 of {report.BF16} | {report.FP32} | -0.0100 | ≥ -0.005: **missed** |" in text
    assert f"| answers of {report.BF16} | {report.FP32} | 0.9950 the same | ≥ 0.99: met |" in text


def test_it_says_where_a_peer_is_ahead(results: dict[str, Any]) -> None:
    for found in results["rounds"]:
        found[OPENVINO] = figures(found[report.FP32]["images_per_second"] * 2)

    text = report.markdown(results)

    assert f"Ahead of {report.FP32}: {OPENVINO} (2.00 x)." in text
    assert "0.50 (0.50 to 0.50) | ≥ 1.05: **missed** |" in text


def test_other_weights_are_told(results: dict[str, Any]) -> None:
    results["accuracy"][OPENVINO]["agreement"] = 0.9

    assert f"**{OPENVINO} is not the same network**" in report.markdown(results)


def test_every_line_of_a_table_has_as_many_cells(results: dict[str, Any]) -> None:
    tables = [block.splitlines() for block in report.markdown(results).split("\n\n") if block.startswith("|")]

    assert len(tables) == 2
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1, lines


def test_the_plot_is_a_picture(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    report.plot(results, tmp_path / "plot.png")

    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
