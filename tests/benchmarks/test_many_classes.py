"""The benchmark of many classes, with few."""

import json
from pathlib import Path

from benchmarks import many_classes


def test_it_prints_seconds_and_memory_of_each(capsys):
    many_classes.main(["--classes", "3", "5", "--photos", "1", "--rounds", "1", "--json", "figures.json"])
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header == "| classes | photos | with | seconds | CPU seconds | MB |"
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [row[:3] for row in cells] == [
        [classes, classes, form] for classes in ("3", "5") for form in many_classes.FORMS
    ]
    assert all(float(row[3]) > 0 and 20 < float(row[5]) < 300 for row in cells)
    assert len(json.loads(Path("figures.json").read_text())) == 8
