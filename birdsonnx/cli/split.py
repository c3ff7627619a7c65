"""`birdsonnx split`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import running
from birdsonnx.cli.next_steps import as_lines
from birdsonnx.cli.options import Debug, Json

Source = Annotated[
    Path, typer.Argument(metavar="SRC", help="A folder of class folders, not parted into train and test.")
]
Destination = Annotated[Path, typer.Argument(metavar="DEST", help="A folder that is new or empty.")]
Valid = Annotated[float, typer.Option(help="Share of each class for DEST/valid; 0: none.")]
Test = Annotated[float, typer.Option(help="Share of each class for DEST/test; 0: none.")]
Copy = Annotated[
    bool,
    typer.Option(
        "--copy", help="Copy the photos. Else DEST holds symbolic links: SRC must stay where it is."
    ),
]
KeepSequences = Annotated[
    bool,
    typer.Option(
        "--keep-sequences",
        help="Photos of one camera (its folder, and what EXIF says), each taken within a minute of the one "
        "before, go into one set.",
    ),
]


def split(
    source: Source,
    destination: Destination,
    valid: Valid = 0.15,
    test: Test = 0.15,
    seed: Annotated[int, typer.Option(help="Another seed parts the photos in another way.")] = 0,
    copy: Copy = False,
    keep_sequences: KeepSequences = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make train, valid and test of class folders; photos that cannot be read are left out and listed."""
    with running(json, debug, ranks="first") as job:
        from birdsonnx.images import splitting
        from birdsonnx.reporting import placed

        request = splitting.Request(source, destination, valid, test, seed, copy, keep_sequences)
        done = splitting.split(request, job.console())
        commands = [f"birdsonnx train --data {shlex.quote(str(destination))}"]
        job.result = {
            "destination": str(destination),
            "copies": copy,
            "seed": seed,
            "photos": done.photos,
            "classes": done.counts,
            "lacking": done.lacking,
            "sequences": done.sequences,
            "without_time": done.without_time,
            "refused": done.refused,
            "next": commands,
        }
        job.say(*placed.split_lines(done, request), *as_lines(commands))
        job.refuse(done.refused)
