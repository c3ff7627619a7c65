"""Taxonomies: the table, and what is said by the sums of its classes."""

import codecs
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.errors import DataError
from birdsonnx.inference.judging.taxonomy import Taxonomy
from birdsonnx.inference.judging.taxonomy_file import TaxonomyTable

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT", "DUCK")
TABLE = """class,genus,family,order
ANT BIRD,Ga,Fa,Oa
BEE-EATER,Ga,Fa,Oa
COOT,Gc,Fa,Oa
DUCK,Gd,Fd,Oa
"""
REORDERED = """class;order;genus;family
DUCK;Oa;Gd;Fd
coot;Oa;Gc;Fa
ANT_BIRD;Oa;Ga;Fa
BEE-EATER;Oa;Ga;Fa
"""


def read(content: str | bytes, possible=(0, 1, 2, 3), classes=CLASSES) -> tuple[Taxonomy, list[str]]:
    path = Path("t.csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    said: list[str] = []
    return TaxonomyTable.read(path).among(classes, possible, said.append), said


def taxa(taxonomy: Taxonomy) -> dict[str, list[str | None]]:
    """Of each level, each class's taxon."""
    return {level.name: [(*level.taxa, None)[index] for index in level.of_class] for level in taxonomy.levels}


FOUND = {
    "genus": ["Ga", "Ga", "Gc", "Gd"],
    "family": ["Fa", "Fa", "Fa", "Fd"],
    "order": ["Oa"] * 4,
}


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        TABLE.replace("\n", "\r\n"),
        codecs.BOM_UTF8 + TABLE.encode(),
        REORDERED,
        REORDERED.replace(";", "\t"),
        TABLE.replace("\n", ",,\n").replace("\n", "\n\n"),  # as spreadsheets fill a table up
        TABLE.replace("class,genus", ' Class , "GENUS"').replace(' "GENUS"', '"GENUS"'),
        TABLE + "EMU,Ge,Fe,Oe\n",
    ],
)
def test_a_table_is_read_whatever_program_wrote_it(content):
    taxonomy, _ = read(content)
    assert taxa(taxonomy) == FOUND
    assert [level.name for level in taxonomy.levels] == ["genus", "family", "order"]
    assert taxonomy.levels[0].unites.tolist().count(True) == 1


def test_levels_of_other_names_are_taken_in_the_order_of_the_columns():
    taxonomy, _ = read("class,kind,group,family\nANT BIRD,k,g,f\nCOOT,l,g,f\n")
    assert [level.name for level in taxonomy.levels] == ["kind", "group", "family"]


def test_an_empty_cell_skips_a_level_and_what_lacks_is_said():
    taxonomy, said = read("class,genus,family\nANT BIRD,,Fa\nBEE-EATER,Gb\nEMU,,\nEMI,,\n")
    assert taxa(taxonomy) == {"genus": [None, "Gb", None, None], "family": ["Fa", None, None, None]}
    assert said == [
        "t.csv: 2 names are none of the model's classes: 'EMU', 'EMI'",
        "t.csv: no line for 2 of 4 classes, so they have no higher level: 'COOT', 'DUCK'",
    ]
    _, said = read("class,genus\nANT BIRD,Ga\nant_bird ,Ga\n", (0,), ("ANT BIRD", "ant_bird"))
    assert said == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "nothing in it; its first line must be such as class,genus,family,order"),
        ("\n\n", "nothing in it"),
        ("ANT BIRD,Ga\n", "its first line must be such as .*, and begins with 'ANT BIRD'"),
        ("name,genus\nCOOT,G\n", "its first line must be"),
        ("class\nCOOT\n", "no levels in it"),
        ("class,,\nCOOT,,\n", "no levels in it"),
        ("class,genus,\nCOOT,G,x\n", "column 3 has no name"),
        ("class,genus,Genus\nCOOT,G,x\n", "the column 'genus' is there twice"),
        ("class,unsure\nCOOT,G\n", "no level can be called 'unsure'; rename column 2"),
        ("class,genus,CLASS\nCOOT,G,x\n", "no level can be called 'class'"),
        ("class,genus\nCOOT,G,x\n", "line 2: 3 cells for 2 columns"),
        ("class,genus\n,G\n", "line 2: the class is missing"),
        ("class,genus\nCOOT,G\nCOOT,G\n", "lines 2 and 3: the class 'COOT' is there twice"),
        ("class,genus\nEMU,G\nCOOT,H\nEMU,G\n", "lines 2 and 4: the class 'EMU' is there twice"),
        ("class,genus\nCOOT,G\n\ncoot,G\n", "lines 2 and 4: the class 'coot' is there twice"),
        ("class,genus\nCOOT,G\nDUCK,g\n", "lines 2 and 3: the genus is written 'G' and 'g'; write it in one"),
        (
            "class,genus,family\nCOOT,G,F\nDUCK,G,H\n",
            "lines 2 and 3: the genus 'G' has two of the level family: 'F' and 'H'",
        ),
        ("class,genus,family\nCOOT,G,F\nDUCK,G,\n", "lines 2 and 3: the genus 'G' has two .*: 'F' and none"),
        ("class,genus,order\nCOOT,G,F\nDUCK,G,H\n", "the genus 'G' has two of the level order"),
        ("class,big,small\nCOOT,B,s\nDUCK,B,t\n", "the big 'B' has two of the level small"),
        ("class,genus\nEMU,G\n", "none of its 1 names is a class of the model: 'EMU'"),
        ("class,genus\n", "no names in it"),
        ('class,genus\n"COOT,G\n', "line 3: no CSV"),
        ("class,genus\n" + "x" * 200_000 + ",G\n", r"line 2: no CSV \(field larger than field limit"),
        ("class,genus\nCOOT,Ü\n".encode("latin-1"), "no text in UTF-8"),
    ],
)
def test_what_contradicts_itself_is_refused(content, said):
    with pytest.raises(DataError, match=rf"^t.csv: .*{said}"):
        read(content)


def oracle(
    probabilities: list[float], table: dict[str, list[str | None]], possible: list[int], threshold: float
) -> tuple[str, str, float] | None:
    """By plain loops."""
    for level, taxon_of in table.items():
        sums: dict[str, float] = {}
        members: dict[str, int] = {}
        for index, taxon in enumerate(taxon_of):
            if taxon is not None and index in possible:
                sums[taxon] = sums.get(taxon, 0.0) + probabilities[index]
                members[taxon] = members.get(taxon, 0) + 1
        best = max(sums, key=lambda taxon: sums[taxon], default=None)
        if best is not None and members[best] > 1 and sums[best] >= threshold:
            return level, best, sums[best]
    return None


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9])
def test_the_most_specific_taxon_that_is_sure_enough(seed, threshold):
    generator = np.random.default_rng(seed)
    classes = [f"class {index}" for index in range(30)]
    genus = generator.integers(0, 14, 30).tolist()
    rows = [
        f"{name},{'' if (number + seed) % 7 == 0 else f'G{number}'},F{number // 3},O{number // 6}"
        for name, number in zip(classes, genus, strict=True)
    ]
    possible = sorted(generator.choice(30, 20, replace=False).tolist())
    taxonomy, _ = read("\n".join(["class,genus,family,order", *rows]), possible, classes)
    for _ in range(20):
        scores = np.full(30, -np.inf)
        scores[possible] = generator.normal(0, 2, 20)
        log_probs = scores - np.log(np.exp(scores).sum())
        expected = oracle(np.exp(log_probs).tolist(), taxa(taxonomy), possible, threshold)
        found = taxonomy.surest(log_probs, threshold)
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert found[:2] == expected[:2]
            assert found[2] == pytest.approx(expected[2], abs=1e-12)


def test_a_taxon_need_not_hold_the_likeliest_class():
    taxonomy, _ = read("class,genus\nANT BIRD,G\nBEE-EATER,G\nCOOT,H\nDUCK,H\n")
    assert taxonomy.surest(np.log([0.3, 0.3, 0.35, 0.05]), 0.5) == ("genus", "G", pytest.approx(0.6))


def test_a_taxon_of_one_class_says_no_more_than_the_class():
    """A model's own threshold of a class may be above that of the taxa."""
    content = "class,genus,family\nANT BIRD,G,F\nBEE-EATER,H,F\n"
    log_probs = np.log([0.9, 0.05, 0.04, 0.01])
    assert read(content)[0].surest(log_probs, 0.8) == ("family", "F", pytest.approx(0.95))
    assert read(content, (0, 2, 3))[0].surest(log_probs, 0.8) is None
