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
    pending: list[h5py.Group] = [file]
    while pending:
        group = pending.pop()
        for name in group:
            leads_away = not isinstance(group.get(name, getlink=True), h5py.HardLink)
            if leads_away:
                raise ValueError(f"{group.name}/{name} is a link; {must}")
            child = group[name]
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:  # a circle, or one array under many names
                raise ValueError(f"{group.name}/{name} is a second name of what it holds already")
            seen.add(address)
            if isinstance(child, h5py.Group):
                pending.append(child)
            elif isinstance(child, h5py.Dataset):
                if child.external or child.is_virtual:
                    raise ValueError(f"{child.name} is stored elsewhere; {must}")
                total += int(child.size or 0) * child.dtype.itemsize
    if total > MAX_EXPANSION * stored + SMALL_BYTES:
        raise ValueError("its arrays say they are far larger than the file; not read")
