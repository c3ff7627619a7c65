"""HDF5 files of others: sizes are looked at before anything is allocated, and no other file is read."""

import h5py

MAX_EXPANSION = 10
"""How many times larger than its stored form an array may be; floating-point numbers compress little."""
SMALL_BYTES = 2**20
"""What may be larger than that."""


def self_contained(file: h5py.File, stored: int, what: str) -> dict[str, tuple[int, ...] | None]:
    """The datasets of an open file of `stored` bytes, by their paths in HDF5's order of names: their
    shapes, None of one that is empty.

    Args:
        what: the file is, for messages.

    Raises:
        ValueError: data would come from another file, are there under two names, or are larger than the file
            can hold.
    """
    must = f"{what} must hold all its data itself"
    found: dict[str, tuple[int, ...] | None] = {}
    total = 0
    seen = {h5py.h5o.get_info(file.id).addr}
    pending = [("", h5py.h5g.open(file.id, b"/"))]
    while pending:  # by h5py's own bindings of HDF5, in half the time of its objects (8,000 datasets)
        above, group = pending.pop()
        for name in group:
            path = f"{above}/{name.decode(errors='surrogateescape')}"
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise ValueError(f"{path} is a link; {must}")
            child = h5py.h5o.get_info(group, name)
            if child.addr in seen:  # a circle, or one array under many names
                raise ValueError(f"{path} is a second name of what it holds already")
            seen.add(child.addr)
            if child.type == h5py.h5o.TYPE_GROUP:
                pending.append((path, h5py.h5g.open(group, name)))
            elif child.type == h5py.h5o.TYPE_DATASET:
                dataset = h5py.h5d.open(group, name)
                _require_inside(dataset, path, must)
                space = dataset.get_space()
                total += space.get_simple_extent_npoints() * dataset.get_type().get_size()
                is_null = space.get_simple_extent_type() == h5py.h5s.NULL
                found[path[1:]] = None if is_null else space.shape
    if total > MAX_EXPANSION * stored + SMALL_BYTES:
        raise ValueError("its arrays say they are far larger than the file; not read")
    return dict(sorted(found.items(), key=lambda each: each[0].split("/")))


def _require_inside(dataset: h5py.h5d.DatasetID, path: str, must: str) -> None:
    """Raises ValueError where a dataset's data are elsewhere."""
    how = dataset.get_create_plist()
    if how.get_layout() == h5py.h5d.VIRTUAL or how.get_external_count():
        raise ValueError(f"{path} is stored elsewhere; {must}")
