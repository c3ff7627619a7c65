"""HDF5 files of others: sizes are looked at before anything is allocated, and no other file is read."""

from collections.abc import Iterator

import h5py

MAX_EXPANSION = 10
"""How many times larger than its stored form an array may be; floating-point numbers compress little."""
SMALL_BYTES = 2**20
"""What may be larger than that."""


Shape = tuple[int, ...] | None
"""Of a dataset; None of one that is empty."""


def self_contained(file: h5py.File, stored: int, what: str) -> dict[str, Shape]:
    """The datasets of an open file and their shapes, as `datasets` gives them, by their paths in the order of
    names. Raises ValueError."""
    return dict(sorted(datasets(file, stored, what), key=lambda each: each[0].split("/")))


def datasets(file: h5py.File, stored: int, what: str) -> Iterator[tuple[str, Shape]]:
    """The datasets of an open file of `stored` bytes, one after the other, in HDF5's order of names: their
    paths and shapes.

    Args:
        what: the file is, for messages.

    Raises:
        ValueError: data would come from another file, are there under two names, or are larger than the file
            can hold, which only the end tells.
    """
    must = f"{what} must hold all its data itself"
    total = 0
    root = h5py.h5g.open(file.id, b"/")
    seen = {h5py.h5o.get_info(root).addr}
    open_groups = [("", root, _hard_links(root, "", must))]
    while open_groups:  # by h5py's own bindings of HDF5, in half the time of its objects (8,000 datasets)
        above, group, names = open_groups[-1]
        name = next(names, None)
        if name is None:
            open_groups.pop()
            continue
        path = f"{above}/{name.decode(errors='surrogateescape')}"
        opened = h5py.h5o.open(group, name)  # looked up once, which is most of the work
        child = h5py.h5o.get_info(opened)
        if child.addr in seen:  # a circle, or one array under many names
            raise ValueError(f"{path} is a second name of what it holds already")
        seen.add(child.addr)
        if child.type == h5py.h5o.TYPE_GROUP:
            open_groups.append((path, opened, _hard_links(opened, path, must)))
        elif child.type == h5py.h5o.TYPE_DATASET:
            _require_inside(opened, path, must)
            space = opened.get_space()
            total += space.get_simple_extent_npoints() * opened.get_type().get_size()
            is_null = space.get_simple_extent_type() == h5py.h5s.NULL
            yield path[1:], None if is_null else space.shape
    if total > MAX_EXPANSION * stored + SMALL_BYTES:
        raise ValueError("its arrays say they are far larger than the file; not read")


def _hard_links(group: h5py.h5g.GroupID, path: str, must: str) -> Iterator[bytes]:
    """The names in a group, in order. Raises ValueError where one is another kind of link, before anything is
    opened through it."""
    names: list[bytes] = []
    others: list[bytes] = []

    def look(name: bytes, link: h5py.h5l.LinkInfo) -> None:
        (names if link.type == h5py.h5l.TYPE_HARD else others).append(name)

    group.links.iterate(look, info=True)
    if others:
        raise ValueError(f"{path}/{others[0].decode(errors='surrogateescape')} is a link; {must}")
    names.sort()
    return iter(names)


def _require_inside(dataset: h5py.h5d.DatasetID, path: str, must: str) -> None:
    """Raises ValueError where a dataset's data are elsewhere."""
    how = dataset.get_create_plist()
    if how.get_layout() == h5py.h5d.VIRTUAL or how.get_external_count():
        raise ValueError(f"{path} is stored elsewhere; {must}")
