"""How fast a model was, as the page says it: by the very pass of the report, or by an earlier benchmark."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from birdsonnx.artifacts.regular_files import read_bytes
from birdsonnx.errors import DataError

LARGEST = 2**24

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _FromFiles(BaseModel):
    images_per_second: Rate


class _Bare(BaseModel):
    streams: int
    threads_per_run: int
    batch: int
    images_per_second: Rate
    p50_ms: Rate
    p99_ms: Rate


class _Benchmark(BaseModel):
    """The part of `birdsonnx benchmark --json` that is shown."""

    model_config = ConfigDict(protected_namespaces=())

    sha256: str
    engine: str
    first_prediction_s: Rate
    bare: Annotated[list[_Bare], Field(min_length=1)]
    from_files: _FromFiles


@dataclass(frozen=True)
class Measured:
    """Speed on the machine where it was measured."""

    images_per_second: float
    """From files, decoding included."""
    how: str
    facts: tuple[tuple[str, str], ...] = ()
    """More of a benchmark."""


def measured_now(photos: int, seconds: float, engine: str) -> Measured:
    """By a pass over so many photos."""
    how = (
        f"measured while this report was made, over {photos:,} photos, decoding included, with {engine} and "
        "whatever else the machine did"
    )
    return Measured(photos / seconds, how)


def measured_before(path: Path, sha256: str | None) -> Measured:
    """By what `birdsonnx benchmark MODEL --json` wrote.

    Raises:
        DataError: it cannot be read, or is of another model than the one with this hash.
    """
    try:
        content: Any = json.loads(read_bytes(path, LARGEST))
        found = _Benchmark.model_validate(content)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        why = f" ({error.errors()[0]['msg']})" if isinstance(error, ValidationError) else ""
        raise DataError(f"{path}: not what birdsonnx benchmark --json prints{why}") from None
    if sha256 is not None and found.sha256 != sha256:
        raise DataError(f"{path}: a benchmark of another model; make one: birdsonnx benchmark MODEL --json")
    fastest = max(found.bare, key=lambda bare: bare.images_per_second)
    cores = f"{fastest.streams} x {fastest.threads_per_run} threads, batch {fastest.batch}"
    return Measured(
        found.from_files.images_per_second,
        f"from files, by the benchmark {path.name}, with {found.engine}",
        (
            ("Fastest session", f"{fastest.images_per_second:.1f} photos/s ({cores})"),
            ("Its latency", f"{fastest.p50_ms:.1f} ms in the median, {fastest.p99_ms:.1f} ms at p99"),
            ("First prediction", f"{found.first_prediction_s:.2f} s from the start of the program"),
        ),
    )
