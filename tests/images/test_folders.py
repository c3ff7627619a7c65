"""Which photos are found, in which order, under which names, and with which labels."""

from pathlib import Path

import pytest

from birdsonnx.errors import DataError
from birdsonnx.images.folders import collect, read_class_folders, require_same_classes


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


# --- Differing class lists ------------------------------------------------------------------------------


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
        (["B", "A"], ["A", "B"], "the order differs"),
        ([], list("ABCDEFG"), "only in train: 'A', 'B', 'C', 'D', 'E' and 2 more"),
    ],
)
def test_differing_classes_are_shown_with_repr(found, expected, said):
    with pytest.raises(DataError) as caught:
        require_same_classes(found, expected, "valid", "train")
    assert said in str(caught.value)


@pytest.mark.parametrize("classes", [[], ["A"], ["B", "A"]])
def test_equal_classes_are_accepted(classes):
    require_same_classes(classes, tuple(classes), "valid", "train")


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
        (["in/x/a.jpg", "in/a.jpg"], "would both be called 'a.jpg'"),
        (["in", "in/x"], "in/a.jpg and in/x/a.jpg would both be called 'a.jpg'"),
        (["in", "in/a.jpg"], "in/a.jpg is given twice"),
        (["in", "./in/*"], "is given twice"),
        (["in/x/a.jpg", "odd"], "'a.jpg' would be both a photo and a folder"),
    ],
)
def test_inputs_that_are_refused(inputs, said):
    make("in/a.jpg", "in/x/a.jpg", "in/notes.txt", "odd/a.jpg/inside.jpg")
    Path("empty").mkdir()
    with pytest.raises(DataError) as caught:
        collect(inputs)
    assert said in str(caught.value)


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
