"""The seam around OpenVINO: the same `.onnx` on its kernels, which use AMX and bf16 where a CPU has them."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from birdsonnx.errors import EngineError, ModelError
from birdsonnx.runtime.engine import Array

TITLE = "OpenVINO"


def installed_version() -> str | None:
    """OpenVINO's version, or None where it is not installed; it is not imported, which takes 0.2 s."""
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None


def computes_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this CPU: it takes AVX512_BF16 or AMX. Raises EngineError."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINO:
    """A model compiled for this CPU, for runs of one size.

    Args:
        model: the serialized `.onnx`.
        streams: runs beside each other.
        threads: inside one run.
        batch: photos in every run: with sizes that are known it compiles faster code.
        bf16: whether it may round to bf16 what is not quantised.
        where: what the model is called in messages.

    Raises:
        EngineError: OpenVINO is not installed, or cannot run this network.
    """

    def __init__(
        self,
        model: bytes,
        streams: int,
        threads: int,
        batch: int,
        bf16: bool = False,
        where: str = "the model",
    ) -> None:
        core = _core()
        self.title = f"{TITLE} {installed_version()}{' in bf16' if bf16 else ''}"
        self._where = where
        # Its constants lie where they are in these bytes, and streams arrange them when they first run: where
        # the bytes were freed, an int8 model's log-probabilities were off by 5.7, now and then.
        self._kept = model
        options: dict[str, Any] = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            # Else the streams of every rank are bound to the same cores.
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,  # the number of threads is settled already
        }
        try:
            network = core.read_model(model)
            [source] = network.inputs
            self.input_shapes = {source.any_name: [batch, *(_sizes(source)[1:])]}
            network.reshape({source.any_name: self.input_shapes[source.any_name]})
            self._compiled = core.compile_model(network, "CPU", options)
            self.output_shapes = {value.any_name: _sizes(value) for value in self._compiled.outputs}
        except Exception as error:  # its exceptions share no base class but this
            raise EngineError(f"{where}: {TITLE} cannot run it ({_short(error)})") from None
        self._source = source.any_name
        self.outputs = list(self.output_shapes)
        values = (*self._compiled.inputs, *self._compiled.outputs)
        self.types = {value.any_name: _kind(value) for value in values}
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by name. Safe to call from several threads at once.

        Raises:
            ModelError: OpenVINO cannot compute it.
        """
        try:
            request = self._idle.get_nowait()
        except Empty:  # as many are made as ever run at once
            request = self._compiled.create_infer_request()
        try:
            values = request.infer({self._source: feeds[self._source]}, share_inputs=True, share_outputs=True)
            # Copies: the request writes its next results into the same memory.
            return {name: np.array(value) for name, value in zip(self.outputs, values.values(), strict=True)}
        except Exception as error:
            raise ModelError(f"{self._where}: {TITLE} cannot compute it ({_short(error)})") from None
        finally:
            self._idle.put(request)


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:  # or a library that it needs is missing
        raise EngineError(f"{TITLE} cannot be used here ({_short(error)})") from None
    return openvino.Core()


def _sizes(value: Any) -> list[Any]:
    return [size.get_length() if size.is_static else "batch" for size in value.partial_shape]


def _kind(value: Any) -> str:
    names = {"u8": "uint8", "f32": "float", "f16": "float16"}
    name = value.element_type.get_type_name()
    return f"tensor({names.get(name, name)})"


def _short(error: Exception) -> str:
    """Its words in one line."""
    return " ".join(str(error).split())[:200]
