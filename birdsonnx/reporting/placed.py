"""Photos that were placed in folders, as people read of it."""

from birdsonnx.images.splitting import Request, Split

MOST_CLASSES = 10
"""So many are named that had too few photos."""


def split_lines(done: Split, request: Request) -> list[str]:
    """How many photos of how many classes are in each set, which classes lack some, and where it all is."""
    sizes = ", ".join(f"{count:,} {name}" for name, count in done.photos.items())
    lines = [f"{len(done.counts):,} classes: {sizes} (seed {request.seed})"]
    if done.sequences is not None:
        alone = f"; {done.without_time:,} photos do not say when they were taken" if done.without_time else ""
        lines.append(f"{done.sequences:,} sequences, each in one set{alone}")
    each = "sequences" if done.sequences is not None else "photos"
    lacking = list(done.lacking.items())
    for name, sets in lacking[:MOST_CLASSES]:
        lines.append(f"{name}: too few {each} for every set; none in {' and '.join(sets)}")
    if len(lacking) > MOST_CLASSES:
        lines.append(f"and {len(lacking) - MOST_CLASSES:,} more classes with too few {each}")
    how = "copies" if request.copies else f"links to the photos in {request.source}, which must stay there"
    return [*lines, f"wrote {request.destination} ({how})"]
