"""Who computes which rows of a feature table."""

from pathlib import Path
from typing import cast

import pytest

from birdsonnx.errors import ArtifactError
from birdsonnx.images.folders import read_class_folders
from birdsonnx.images.photo_list import Photo
from birdsonnx.runtime.phases import Phases
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training.feature_pass import FeaturePass
from birdsonnx.training.table_file import Layout, TableFile
from tests.tiny import make_class_folders
from tests.training.backbones import backbone


class OfMany(Ranks):
    """Of several ranks, as far as sizes of units go."""

    size = 3


def work(photos: list[Photo], ranks: Ranks, table: TableFile | None = None) -> FeaturePass:
    return FeaturePass(backbone(), photos, None, cast(TableFile, table), ranks, lambda _: None, Phases())


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 63, 64, 1000])
def test_every_row_is_handed_out_once_in_whole_pieces_that_get_fewer(count):
    photos = [Photo(Path(f"{number}.png"), f"{number}.png") for number in range(count)]
    pass_ = work(photos, OfMany())
    units, rank = [], 0
    while (unit := pass_.take(rank)) is not None:
        assert unit.start % 4 == 0
        units.append((rank, unit))
        rank = (rank + len(units)) % 3
    assert [row for _, unit in units for row in unit] == list(range(count))
    sizes = [len(unit) for _, unit in units]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size <= 64 for size in sizes)
    assert pass_.owners == units


def test_who_cannot_write_takes_the_rest_without_a_word_and_nobody_gets_more():
    photos = read_class_folders(make_class_folders(Path("photos"), per_class=5)).photos
    made = backbone()
    place = Path("table")
    place.write_bytes(b"")
    table = TableFile(place, Layout("table", len(photos), made.row), writable=False)  # so that no write works
    pass_ = work(photos, Ranks(), table)
    for _ in Ranks().on_demand(pass_):
        pass
    table.close()
    assert isinstance(pass_.failure, ArtifactError)
    assert pass_.take(0) is None
