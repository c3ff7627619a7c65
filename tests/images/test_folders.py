"""Which photos are found, in which order, under which names, and with which labels."""

import os
import re
import unicodedata
from pathlib import Path

import pytest

from birdsonnx.config.data import Data
from birdsonnx.errors import DataError
from birdsonnx.images.folders import (
    LabelledFolder,
    Photo,
    fitted,
    read_class_folders,
    training_photos,
)
from birdsonnx.images.folders import (
    test_photos as photos_to_test,
)
from birdsonnx.images.inputs import collect


def make(*paths: str) -> None:
    """Empty files: what a photo holds does not matter here."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(*inputs: str) -> list[str]:
    return [photo.name for photo in collect(inputs)]


# --- Class folders --------------------------------------------------------------------------------------


def test_classes_and_photos_come_in_name_order():
    make("data/b/2.jpg", "data/b/10.jpg", "data/B/1.png", "data/a b/z.jpg", "data/a/1.jpg", "data/Ä/1.jpg")
    folder = read_class_folders(Path("data"))
    assert folder.root == Path("data")
    assert folder.classes == ("B", "a", "a b", "b", "Ä")
    assert [(photo.name, photo.label, photo.path) for photo in folder.photos] == [
        ("B/1.png", 0, Path("data/B/1.png")),
        ("a/1.jpg", 1, Path("data/a/1.jpg")),
        ("a b/z.jpg", 2, Path("data/a b/z.jpg")),
        ("b/10.jpg", 3, Path("data/b/10.jpg")),
        ("b/2.jpg", 3, Path("data/b/2.jpg")),
        ("Ä/1.jpg", 4, Path("data/Ä/1.jpg")),
    ]


def test_only_visible_photos_of_known_suffixes_count():
    make(
        "data/a/1.JPG",
        "data/a/2.jpeg",
        "data/a/3.webp",
        "data/a/4.TIFF",
        "data/a/.5.jpg",
        "data/a/notes.txt",
        "data/a/jpg",
        "data/a/.hidden/6.jpg",
        "data/.git/7.jpg",
        "data/readme.jpg",
    )
    folder = read_class_folders(Path("data"))
    assert folder.classes == ("a",)
    assert [photo.name for photo in folder.photos] == ["a/1.JPG", "a/2.jpeg", "a/3.webp", "a/4.TIFF"]


def test_folders_inside_a_class_belong_to_it():
    make("data/a/2019/june/1.jpg", "data/a/0.jpg", "data/b/1.jpg")
    folder = read_class_folders(Path("data"))
    assert [(photo.name, photo.label) for photo in folder.photos] == [
        ("a/0.jpg", 0),
        ("a/2019/june/1.jpg", 0),
        ("b/1.jpg", 1),
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "data: there is no such folder"),
        (["data"], "data: this is a file"),
        (["data/1.jpg"], "data: no class folders in it"),
        (["data/.a/1.jpg"], "data: no class folders in it"),
        (["data/a/1.jpg", "data/b  c/notes.txt"], "data: the class folder 'b  c' holds no photos"),
        (["data/a/.1.jpg"], "data: the class folder 'a' holds no photos"),
    ],
)
def test_folders_that_are_refused(files, said):
    make(*files)
    with pytest.raises(DataError) as caught:
        read_class_folders(Path("data"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("files", "may_lack", "said"),
    [
        (
            ["data/train/robin/1.jpg", "data/valid/robin/1.jpg", "data/Test/robin/1.jpg"],
            True,
            "data: its folders are no classes but sets ('Test', 'train', 'valid': they hold the class "
            "folders); give data/Test, or name the set: --tag Test, in a config test_tag",
        ),
        (
            ["data/train/robin/1.jpg", "data/valid/robin/1.jpg"],
            False,
            "give data/train, or name the set: --tag train, in a config training_tag",
        ),
        (["data/validation/robin/1.jpg"], True, "give data/validation, or name the set: --tag validation"),
    ],
)
def test_the_folder_above_the_sets_is_refused(files, may_lack, said):
    make(*files)
    with pytest.raises(DataError, match=re.escape(said)):
        read_class_folders(Path("data"), may_lack=may_lack)


def test_classes_may_be_called_like_sets():
    make("data/test/1.jpg", "data/train/1.jpg")
    assert read_class_folders(Path("data")).classes == ("test", "train")
    make("data/robin/nest/1.jpg")
    assert read_class_folders(Path("data")).classes == ("robin", "test", "train")


def test_the_folder_above_those_that_a_model_knows_is_refused():
    make("data/june/robin/1.jpg", "data/july 2/robin/1.jpg", "data/notes/a/1.jpg")
    folder = read_class_folders(Path("data"))
    for mend in ("", "export a network for them"):
        with pytest.raises(DataError, match=r"sets \('july 2', 'june': they .*give data/july 2, .*'july 2',"):
            fitted(folder, ["robin", "wren"], 2, "model.onnx", mend)


def test_a_mistyped_folder_is_guessed():
    make("data/test/robin/1.jpg")
    for name in ("dta/test", "data/tst", "Data/Test"):
        with pytest.raises(DataError, match=f"{name}: there is no such folder; did you mean 'data/test'"):
            read_class_folders(Path(name))
        with pytest.raises(DataError, match=f"{name}: no such file or folder; did you mean 'data/test'"):
            collect([name])


# --- Tags -----------------------------------------------------------------------------------------------


def listed(folder: LabelledFolder) -> list[tuple[str, str]]:
    """Names and classes."""
    return [(photo.name, folder.classes[photo.label or 0]) for photo in folder.photos]


SITES = (
    "data/siteA/train/robin/x.jpg",
    "data/siteA/train/wren/2020/june/x.jpg",
    "data/siteB/2021/train/robin/x.jpg",
    "data/siteA/test/robin/x.jpg",
    "data/siteB/2021/test/wren/y.jpg",
    "data/siteA/notes/map.jpg",
    "data/siteA/train/.cache/robin/z.jpg",
    "data/siteA/train/robin/.z.jpg",
    "data/overview.jpg",
)


def test_the_folder_below_a_tag_is_the_class_wherever_the_tag_is():
    make(*SITES)
    train = read_class_folders(Path("data"), "train", "test")
    assert train.classes == ("robin", "wren")
    assert listed(train) == [
        ("siteA/train/robin/x.jpg", "robin"),
        ("siteA/train/wren/2020/june/x.jpg", "wren"),
        ("siteB/2021/train/robin/x.jpg", "robin"),
    ]
    assert train.left_out == 2
    test = read_class_folders(Path("data"), "test", "train")
    assert listed(test) == [("siteA/test/robin/x.jpg", "robin"), ("siteB/2021/test/wren/y.jpg", "wren")]
    assert test.photos[0].path == Path("data/siteA/test/robin/x.jpg")


def test_the_sets_of_a_config():
    make(*SITES, "other/test/robin/1.jpg", "flat/wren/1.jpg")
    both = Data(input_path="data", training_tag="train", test_tag="test")
    assert len(training_photos(both, print).photos) == 3
    assert listed(photos_to_test(both, print)) == [
        ("siteA/test/robin/x.jpg", "robin"),
        ("siteB/2021/test/wren/y.jpg", "wren"),
    ]
    elsewhere = Data(input_path="data", test_input_path="other", training_tag="train", test_tag="test")
    assert listed(photos_to_test(elsewhere, print)) == [("test/robin/1.jpg", "robin")]
    untagged = Data(input_path="data", test_input_path="flat", training_tag="train")
    assert listed(photos_to_test(untagged, print)) == [("wren/1.jpg", "wren")]
    assert photos_to_test(Data(input_path="data", training_tag="train"), print) is None
    make("mnist/training/3/1.jpg", "mnist/testing/3/2.jpg")
    named_twice = Data(
        input_path="./mnist/training/",
        test_input_path="./mnist/testing/",
        training_tag="training",
        test_tag="testing",
    )
    assert listed(training_photos(named_twice, print)) == [("3/1.jpg", "3")]
    assert listed(photos_to_test(named_twice, print)) == [("3/2.jpg", "3")]


@pytest.mark.parametrize("root", ["pets/training", "./pets/training/", "pets/training/x"])
def test_the_tag_may_lead_to_the_root(root):
    make("pets/training/x/1.jpg", "pets/training/x/y/2.jpg")
    folder = read_class_folders(Path(root), "training")
    assert folder.classes == ("x",)
    assert [photo.name for photo in folder.photos] == (
        ["1.jpg", "y/2.jpg"] if root.endswith("x") else ["x/1.jpg", "x/y/2.jpg"]
    )


def test_a_tag_below_the_root_comes_before_one_that_leads_to_it():
    make("train/all/train/robin/1.jpg", "train/all/map.jpg")
    folder = read_class_folders(Path("train/all"), "train")
    assert (listed(folder), folder.left_out) == ([("train/robin/1.jpg", "robin")], 1)


def test_where_the_working_folder_lies_does_not_matter(tmp_path, monkeypatch):
    make("train/here/wren/1.jpg")
    monkeypatch.chdir(tmp_path / "train" / "here")
    with pytest.raises(DataError, match=r"\.: no photo in a folder called 'train'"):
        read_class_folders(Path(), "train")


def test_a_class_may_be_called_like_its_own_tag():
    make("data/train/train/1.jpg", "data/train/plane/train/2.jpg")
    assert listed(read_class_folders(Path("data"), "train")) == [
        ("train/plane/train/2.jpg", "plane"),
        ("train/train/1.jpg", "train"),
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "data: there is no such folder"),
        (["data/robin/1.jpg"], "data: no photo in a folder called 'train', here or below"),
        (["data/trian/robin/1.jpg"], "called 'train', here or below; did you mean 'trian'?"),
        (["data/Train/robin/1.jpg"], "did you mean 'Train'?"),
        (["data/train/robin/notes.txt"], "no photo in a folder called 'train'"),
        (["data/train.jpg"], "no photo in a folder called 'train'"),
        (
            ["data/test/robin/1.jpg", "data/a/train/2.jpg", "data/train/3.jpg"],
            "data: photos lie directly in a folder 'train', without a class folder between: 'a/train/2.jpg', "
            "'train/3.jpg'",
        ),
        (
            ["data/train/robin/1.jpg", "data/train/test/robin/2.jpg", "data/test/robin/3.jpg"],
            "data: photos lie both in a folder 'train' and in one 'test', and could be of either set: "
            "'train/test/robin/2.jpg'; rename",
        ),
        (["data/train/robin/1.jpg"], "no photo in a folder called 'test'"),
    ],
)
def test_tags_that_are_refused(files, said):
    make(*files)
    with pytest.raises(DataError) as caught:
        read_class_folders(Path("data"), "train", "test")
    assert said in str(caught.value)


def test_a_photos_own_name_is_no_folder():
    make("data/train/robin/1.jpg")
    with pytest.raises(DataError, match=r"no photo in a folder called '1\.jpg'"):
        read_class_folders(Path("data"), "1.jpg")


def test_photos_to_name_of_a_tag():
    make(*SITES, "data/test/z.jpg")
    assert [photo.name for photo in collect(["data"], "test")] == [
        "siteA/test/robin/x.jpg",
        "siteB/2021/test/wren/y.jpg",
        "test/z.jpg",
    ]
    with pytest.raises(DataError, match="no photo in a folder called 'valid'"):
        collect(["data"], "valid")
    with pytest.raises(DataError, match="this is no folder"):
        collect(["data/*"], "test")


# --- Differing class lists ------------------------------------------------------------------------------


def folder_of(*classes: str) -> LabelledFolder:
    photos = tuple(Photo(Path(name), name, label) for label, name in enumerate(classes))
    return LabelledFolder(Path("valid"), classes, photos)


@pytest.mark.parametrize(
    ("found", "expected", "said"),
    [
        (
            ["PARAKETT  AKULET"],
            ["PARAKETT AKULET"],
            "only in valid: 'PARAKETT  AKULET'; only in train: 'PARAKETT AKULET'",
        ),
        (["A", "B "], ["A"], "between valid (2) and train (1): only in valid: 'B '"),
        (["A"], ["A", "B\u00a0C"], "only in train: 'B\\xa0C'"),
        ([], list("ABCDEFG"), "only in train: 'A', 'B', 'C', 'D', 'E' and 2 more"),
    ],
)
def test_differing_classes_are_shown_with_repr(found, expected, said):
    with pytest.raises(DataError) as caught:
        fitted(folder_of(*found), expected, len(expected), "train")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([], []),
        (["A"], ["A"]),
        (["A", "B"], ["B", "A"]),
        (["be\u0301casse", "zzz"], ["zzz", "b\u00e9casse"]),
        (["b\u00e9casse", "A"], ["A", "be\u0301casse"]),
    ],
)
def test_classes_are_matched_by_name_in_either_unicode_form(classes, expected):
    found = fitted(folder_of(*classes), expected, len(expected), "train")
    assert found.classes == tuple(expected)
    for photo in found.photos:
        form = unicodedata.normalize("NFC", expected[photo.label])
        assert unicodedata.normalize("NFC", photo.name) == form


def test_a_test_set_may_lack_classes_which_is_said():
    lines = []
    found = fitted(folder_of("B"), ["A", "B", "C"], 3, "train", say=lines.append)
    assert [photo.label for photo in found.photos] == [1]
    assert lines == ["valid: no folder of 2 of the 3 classes: 'A', 'C'"]
    with pytest.raises(DataError, match="only in valid: 'D'"):
        fitted(folder_of("B", "D"), ["A", "B", "C"], 3, "train", say=lines.append)


def test_numbers_are_compared_where_a_model_knows_no_names():
    assert fitted(folder_of("A", "B"), None, 2, "x.onnx") == folder_of("A", "B")
    with pytest.raises(DataError, match=r"x\.onnx has 3 classes, valid has 2 class folders$"):
        fitted(folder_of("A", "B"), None, 3, "x.onnx")
    with pytest.raises(DataError, match=r"x\.onnx has 3 classes, valid has 2 class folders; do this$"):
        fitted(folder_of("A", "B"), list("ABC"), 3, "x.onnx", mend="do this")


# --- Names that cannot be kept, files that are no photos --------------------------------------------------


@pytest.mark.parametrize("tag", [None, "train"])
def test_a_class_folder_that_is_not_utf8_is_refused_with_its_name(tag):
    folder = os.fsdecode(b"b\xe9casse")
    make(f"data/{'train/' if tag else ''}{folder}/1.jpg")
    with pytest.raises(DataError, match=r"the class folder 'b\\udce9casse' is not UTF-8.*rename the folder"):
        read_class_folders(Path("data"), tag)


def test_two_unicode_forms_of_one_class_are_refused():
    make("data/be\u0301casse/1.jpg", "data/b\u00e9casse/2.jpg")
    with pytest.raises(
        DataError, match=r"'be\\u0301casse' and 'b\\xe9casse' differ in their Unicode form only"
    ):
        read_class_folders(Path("data"))


def test_an_empty_class_folder_of_a_test_set_is_said():
    make("data/A/1.jpg", "data/B/notes.txt")
    with pytest.raises(DataError, match="the class folder 'B' holds no photos"):
        read_class_folders(Path("data"))
    lines = []
    found = read_class_folders(Path("data"), say=lines.append, may_lack=True)
    assert (found.classes, len(found.photos)) == (("A", "B"), 1)
    assert "data: the class folder 'B' holds no photos" in lines


def test_what_is_left_out_is_counted_and_said():
    make("data/A/1.jpg", "data/2.jpg", "data/A/notes.txt", "data/A/x.xml", "data/readme", "data/A/y.ini")
    lines = []
    found = read_class_folders(Path("data"), say=lines.append)
    assert [photo.name for photo in found.photos] == ["A/1.jpg"]
    assert lines == [
        "data: 1 photos lie beside the class folders, in no class: left out",
        "data: 4 files (A/notes.txt, A/x.xml, A/y.ini and 1 more) that are no photos: left out",
    ]
    lines.clear()
    assert [photo.name for photo in collect(["data"], say=lines.append)] == ["2.jpg", "A/1.jpg"]
    assert len(lines) == 1


# --- Inputs of predict ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["in"], ["a.jpg", "x/b.png", "x/y/a.jpg"]),
        (["in/"], ["a.jpg", "x/b.png", "x/y/a.jpg"]),
        (["./in"], ["a.jpg", "x/b.png", "x/y/a.jpg"]),
        (["in/x"], ["b.png", "y/a.jpg"]),
        (["in/x/y/a.jpg"], ["a.jpg"]),
        (["in/notes.txt"], ["notes.txt"]),
        (["in/x/b.png", "in/a.jpg"], ["a.jpg", "b.png"]),
        (["in/*.jpg"], ["a.jpg"]),
        (["in/*"], ["a.jpg", "x/b.png", "x/y/a.jpg"]),
        (["in/x/*"], ["b.png", "y/a.jpg"]),
        (["in/*/b.???"], ["x/b.png"]),
        (["in/**/*.jpg"], ["a.jpg", "x/y/a.jpg"]),
        (["i[mn]/a.jpg"], ["in/a.jpg"]),
        (["*/a.jpg"], ["in/a.jpg"]),
        (["in/a.jpg", "in/x"], ["a.jpg", "b.png", "y/a.jpg"]),
    ],
)
def test_inputs_and_the_names_they_give(inputs, expected):
    make("in/a.jpg", "in/x/b.png", "in/x/y/a.jpg", "in/notes.txt", "in/.hidden.jpg")
    assert names(*inputs) == expected


def test_names_do_not_depend_on_absolute_paths(tmp_path):
    make("in/a.jpg", "in/x/b.png")
    for pattern in ("in", "in/*", "in/**/*.*"):
        assert names(str(tmp_path / pattern)) == ["a.jpg", "x/b.png"]


def test_a_file_called_like_a_pattern_is_that_file():
    make("in/a[1].jpg", "in/a1.jpg")
    assert names("in/a[1].jpg") == ["a[1].jpg"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "no photos to name"),
        (["nothing.jpg"], "nothing.jpg: no such file or folder"),
        (["empty"], "empty: no photos in this folder"),
        (["in/*.gif"], "in/*.gif: no photo matches this pattern"),
        (["in/*.txt"], "in/*.txt: no photo matches this pattern"),
        (["in", "nothing"], "nothing: no such file or folder"),
        (["in", "in/x"], "in/x/a.jpg is given twice"),
        (["in", "in/a.jpg"], "in/a.jpg is given twice"),
        (["in", "./in/*"], "is given twice"),
    ],
)
def test_inputs_that_are_refused(inputs, said):
    make("in/a.jpg", "in/x/a.jpg", "in/notes.txt")
    Path("empty").mkdir()
    with pytest.raises(DataError) as caught:
        collect(inputs)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["cardA", "cardB"], ["cardA/1.jpg", "cardA/sub/2.jpg", "cardB/1.jpg", "cardB/3.jpg"]),
        (["cardB/", "./cardA"], ["cardA/1.jpg", "cardA/sub/2.jpg", "cardB/1.jpg", "cardB/3.jpg"]),
        (["cardA/1.jpg", "cardB/*"], ["cardA/1.jpg", "cardB/1.jpg", "cardB/3.jpg"]),
        (["site1/DCIM", "site2/DCIM"], ["site1/DCIM/1.jpg", "site2/DCIM/1.jpg"]),
        (["site1/DCIM", "site1/raw"], ["DCIM/1.jpg", "raw/1.jpg"]),
        (
            ["site1/raw", "site2/DCIM/1.jpg", "cardB/3.jpg"],
            ["cardB/3.jpg", "site1/raw/1.jpg", "site2/DCIM/1.jpg"],
        ),
        (["cardA/1.jpg", "odd"], ["cardA/1.jpg", "odd/1.jpg/inside.jpg"]),
        (["link", "cardA"], ["cardA/1.jpg", "cardA/sub/2.jpg", "link/1.jpg", "link/sub/2.jpg"]),
        (["cardB/3.jpg", "cardA/sub"], ["2.jpg", "3.jpg"]),
    ],
)
def test_names_that_would_collide_keep_their_folders(inputs, expected):
    make("cardA/1.jpg", "cardA/sub/2.jpg", "cardB/1.jpg", "cardB/3.jpg", "odd/1.jpg/inside.jpg")
    make("site1/DCIM/1.jpg", "site1/raw/1.jpg", "site2/DCIM/1.jpg")
    Path("link").symlink_to("cardA")
    lines: list[str] = []
    found = collect(inputs, say=lines.append)
    assert [photo.name for photo in found] == expected
    for photo in found:
        assert photo.path.as_posix().endswith(photo.name)
    assert len(lines) == (0 if expected == ["2.jpg", "3.jpg"] else 1)


def test_names_that_get_folders_are_told():
    make("cardA/1.jpg", "cardB/1.jpg")
    lines: list[str] = []
    collect(["cardA", "cardB"], say=lines.append)
    assert lines == [
        "cardA/1.jpg and cardB/1.jpg would both be called '1.jpg': names begin with their folders, such as "
        "'cardA/1.jpg'"
    ]


# --- Links ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [".", "..", "../..", "../b"])
def test_loops_of_folder_links_end(target):
    make("data/a/1.jpg", "data/b/2.jpg")
    Path("data/b/other").symlink_to("../a")
    Path("data/a/loop").symlink_to(target)
    found = names("data/a")
    assert found[0] == "1.jpg"
    assert len(found) == len(set(found)) < 10
    assert read_class_folders(Path("data")).classes == ("a", "b")


def test_folders_that_link_to_each_other_are_visited_once():
    kinds = [f"kind{number}" for number in range(8)]
    for kind in kinds:
        make(*(f"data/{kind}/{number}.jpg" for number in range(3)))
        for other in kinds:
            Path(f"data/{kind}/to_{other}").symlink_to(f"../{other}")
    expected = [f"{kind}/{number}.jpg" for kind in kinds for number in range(3)]
    assert names("data") == expected
    assert [photo.name for photo in read_class_folders(Path("data")).photos] == expected
    assert len(names("data/kind0")) == 24


def test_links_to_folders_and_files_are_followed():
    make("elsewhere/1.jpg", "elsewhere/deep/2.jpg")
    Path("data/a").mkdir(parents=True)
    Path("data/b").symlink_to(Path("elsewhere").absolute())
    Path("data/a/other.jpg").symlink_to(Path("elsewhere/1.jpg").absolute())
    folder = read_class_folders(Path("data"))
    assert [photo.name for photo in folder.photos] == ["a/other.jpg", "b/1.jpg", "b/deep/2.jpg"]


def test_a_broken_link_is_listed_so_that_it_is_refused_by_name():
    make("data/a/1.jpg")
    Path("data/a/2.jpg").symlink_to("nowhere.jpg")
    assert names("data/a") == ["1.jpg", "2.jpg"]
    assert names("data/a/2.jpg") == ["2.jpg"]


@pytest.mark.parametrize("link", ["data/A/loop", "data/loop"])
def test_a_link_to_itself_stops_nothing(link):
    make("data/A/1.jpg")
    Path(link).symlink_to(Path(link).name)
    assert [photo.name for photo in read_class_folders(Path("data")).photos] == ["A/1.jpg"]
    assert names("data") == ["A/1.jpg"]
