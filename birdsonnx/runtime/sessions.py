"""The seam around ONNX Runtime: sessions, and streams of photos through any engine.

Throughput comes from as many single-threaded streams as there are cores, all on one session: each thread
decodes a few photos and runs them itself. Against one session with a thread pool (batch 8, default
settings, ResNet50 on 2 cores) that is about 1.1 x the images/s before any decoding, and decoding needs
neither a thread of its own nor a core that the pool spins on.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import ModelError
from birdsonnx.runtime import onnxruntime_package
from birdsonnx.runtime.engine import Array

Item = TypeVar("Item")
Result = TypeVar("Result")

PHOTOS_PER_RUN = 4
"""Of 1, 2, 4 and 8 per run in a stream: 4 is within noise of the fastest, and a quarter of the calls of 1."""

LOOK_S = 0.01
"""Between two looks of who waits for a stream at what else there is to do. A look takes 0.03 ms."""

WRONG_OPTIMIZERS = ["Pad_Fusion"]
"""It fuses a Pad of zeros into a pooling with the attribute `pads`, be it zeros, as if both padded with the
same: maxima of negative values and averages come out wrong, or the session does not open (1.19.2)."""


def runtime_version() -> str:
    """ONNX Runtime's version, such as `1.19.2`: results of another one may have other bits."""
    return str(onnxruntime_package.load().__version__)


class Session:
    """An ONNX Runtime CPU session.

    Args:
        model: the serialized model; never a path, next to which the runtime would look for more files.
        threads: threads inside one run; 1 lets several streams share the session without a pool.
        where: what the model is called in messages.
        plain: whether each node runs as it stands, in its plain layout: slower, and sums in another order.

    Raises:
        ModelError: the runtime cannot load the model.
    """

    def __init__(self, model: bytes, threads: int = 1, where: str = "the model", plain: bool = False) -> None:
        onnxruntime = onnxruntime_package.load()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Else runs of several sizes beside each other keep a block each: full fine-tuning 4.5 GB, so 3.0.
        options.enable_mem_pattern = False
        options.log_severity_level = 4  # errors are raised as well; its log would print names of a file raw
        # The runtime's own format would pass by all that is known of an .onnx.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        if plain:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # A spinning pool takes cores from decoding and from other ranks.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                model,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=WRONG_OPTIMIZERS,
                enable_fallback=0,  # to the same provider, after a line on stdout
            )
            self.input_shapes: dict[str, list[Any]] = _shapes(self._session.get_inputs())
            """Each input's shape; a dynamic axis is its name."""
            self.output_shapes: dict[str, list[Any]] = _shapes(self._session.get_outputs())
            """Each output's shape; a dynamic axis is its name."""
            self.outputs = list(self.output_shapes)
            self.types: dict[str, str] = {
                value.name: value.type
                for value in (*self._session.get_inputs(), *self._session.get_outputs())
            }
            """Of inputs and outputs: `tensor(uint8)`."""
        except Exception as error:  # the runtime's exceptions share no base class
            raise ModelError(f"{where}: not an ONNX model this runtime can load ({_short(error)})") from None
        self._where = where

    @property
    def title(self) -> str:
        """`ONNX Runtime 1.19.2`."""
        return f"ONNX Runtime {runtime_version()}"

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Every output by name. Safe to call from several threads at once.

        Raises:
            ModelError: the runtime cannot compute it, or a result is of another size than the model says.
        """
        with refusing(self._where):
            results = self._session.run(None, dict(feeds))
        for (name, said), result in zip(self.output_shapes.items(), results, strict=True):
            if len(said) != result.ndim or any(
                isinstance(size, int) and size != got for size, got in zip(said, result.shape, strict=True)
            ):
                raise ModelError(f"{self._where}: it says that {name!r} is {said}, and makes {result.shape}")
        return dict(zip(self.outputs, results, strict=True))

    def bound(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> "BoundRun":
        """Runs that read and write the same memory every time; see `BoundRun`."""
        return BoundRun(self._session, inputs, outputs)


@contextmanager
def refusing(where: str) -> Iterator[None]:
    """Raises as ModelError whatever the runtime raises over a model; its exceptions share no base class."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"{where}: the runtime cannot compute it ({_short(error)})") from None


def _short(error: Exception) -> str:
    """The runtime's words in one line."""
    return " ".join(str(error).split())[:200]


def _shapes(values: Iterable[Any]) -> dict[str, list[Any]]:
    return {value.name: list(value.shape) for value in values}


class BoundRun:
    """Runs of a session that read `inputs` and write `outputs` where they lie, without copies.

    `run` returns arrays of its own, which for gradients the size of a model costs an allocation and a copy
    of 100 MB each time. Not safe to call from several threads at once; make one for each.
    """

    def __init__(self, session: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._kept = [*inputs.values(), *outputs.values()]  # the binding itself holds no reference
        for name, value in inputs.items():
            self._binding.bind_cpu_input(name, value)
        for name, value in outputs.items():
            self._binding.bind_output(name, "cpu", 0, value.dtype.type, value.shape, value.ctypes.data)

    def __call__(self, feeds: Mapping[str, Array]) -> None:
        """Run once, with `feeds` beside the bound inputs."""
        kept = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        for name, value in kept.items():
            self._binding.bind_cpu_input(name, value)
        with refusing("the model"):
            self._session.run_with_iobinding(self._binding)


def in_streams(
    streams: int,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int = 2,
    meanwhile: Callable[[], None] | None = None,
) -> Generator[Result]:
    """`work(item)` for each item in order, computed by `streams` threads; at most `ahead` results per
    stream wait to be taken, so memory is bounded whatever the number of items.

    They are taken by the half of those: the taker shares the cores with the streams, and each time it wakes
    it stops one of them and finds its caches cold. `meanwhile` is called by the taker, every `LOOK_S` for as
    long as it waits.

    Close it where it has a name and may be left early (`contextlib.closing`): a name outlives an error in its
    traceback, and a pool that the garbage collector ends while another one starts waits for itself.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(streams, thread_name_prefix="stream") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > streams * ahead:
                    half = len(waiting) // 2
                    _wait_for(waiting[half - 1], meanwhile)
                    for _ in range(half):
                        yield waiting.popleft().result()
            while waiting:
                _wait_for(waiting[0], meanwhile)
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # left early: an error, or a reader that stopped
                future.cancel()


def _wait_for(future: Future[Any], meanwhile: Callable[[], None] | None) -> None:
    while meanwhile is not None and not wait([future], LOOK_S).done:
        meanwhile()
    wait([future])


def slices(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Consecutive pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def streams_for(photos: int, threads: int) -> tuple[int, int]:
    """`(streams, threads per run)` that keep `threads` cores busy with so many photos: too few of them
    to go round share the cores inside each run."""
    if photos >= threads:
        return threads, 1
    return max(1, photos), max(1, threads // max(1, photos))
