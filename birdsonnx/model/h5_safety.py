"""HDF5 files of others: sizes are looked at before anything is allocated, and no other file is read."""

import h5py

MAX_EXPANSION = 10
"""How many times larger than its stored form an array may be; floating-point numbers compress little."""
SMALL_BYTES = 2**20
"""What may be larger than that."""


def require_self_contained(file: h5py.File, stored: int, what: str) -> None:
    """Walk an open file of `stored` bytes; `what` it is, for messages.

    Raises:
        ValueError: data would come from another file, are there under two names, or are larger than the file
            can hold.
    """
    must = f"{what} must hold all its data itself"
    total = 0
    seen = {h5py.h5o.get_info(file.id).addr}
    pending = [("", h5py.h5g.open(file.id, b"/"))]
    while pending:  # by h5py's own bindings of HDF5: its objects, one for each dataset, take 5 times as long
        above, group = pending.pop()
        for name in group:
            path = f"{above}/{name.decode(errors='backslashreplace')}"
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise ValueError(f"{path} is a link; {must}")
            child = h5py.h5o.get_info(group, name)
            if child.addr in seen:  # a circle, or one array under many names
                raise ValueError(f"{path} is a second name of what it holds already")
            seen.add(child.addr)
            if child.type == h5py.h5o.TYPE_GROUP:
                pending.append((path, h5py.h5g.open(group, name)))
            elif child.type == h5py.h5o.TYPE_DATASET:
                total += _bytes_of(h5py.h5d.open(group, name), path, must)
    if total > MAX_EXPANSION * stored + SMALL_BYTES:
        raise ValueError("its arrays say they are far larger than the file; not read")


def _bytes_of(dataset: h5py.h5d.DatasetID, path: str, must: str) -> int:
    """What a dataset takes once it is read. Raises ValueError where its data are elsewhere."""
    how = dataset.get_create_plist()
    if how.get_layout() == h5py.h5d.VIRTUAL or how.get_external_count():
        raise ValueError(f"{path} is stored elsewhere; {must}")
    return int(dataset.get_space().get_simple_extent_npoints() * dataset.get_type().get_size())
