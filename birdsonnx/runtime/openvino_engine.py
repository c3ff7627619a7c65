"""The seam around OpenVINO: the same `.onnx` on its kernels, which use AMX and bf16 where a CPU has them."""

import threading
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from birdsonnx.errors import EngineError, ModelError
from birdsonnx.runtime import isa
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

        def compiled(network: Any, streams: int) -> Any:
            options: dict[str, Any] = {
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams * threads,
                "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
                # Else the streams of every rank are bound to the same cores.
                "ENABLE_CPU_PINNING": False,
                "ENABLE_HYPER_THREADING": True,  # the number of threads is settled already
            }
            return core.compile_model(network, "CPU", options)

        try:
            network = core.read_model(model)
            [source] = network.inputs
            self.input_shapes = {source.any_name: [batch, *(_sizes(source)[1:])]}
            network.reshape({source.any_name: self.input_shapes[source.any_name]})
            if not isa.adds_in_16_bits():
                _quantize_pixels(network)
            first = compiled(network, streams)
            apart = streams > 1 and _computes_weights(first)
            self._compiled = [compiled(network, 1) for _ in range(streams)] if apart else [first]
            self.output_shapes = {value.any_name: _sizes(value) for value in first.outputs}
        except Exception as error:  # its exceptions share no base class but this
            raise EngineError(f"{where}: {TITLE} cannot run it ({_short(error)})") from None
        self._source = source.any_name
        self.outputs = list(self.output_shapes)
        values = (*first.inputs, *first.outputs)
        self.types = {value.any_name: _kind(value) for value in values}
        self._idle: SimpleQueue[Any] = SimpleQueue()
        self._turn = cycle(self._compiled)
        self._alone = threading.Lock()
        self._has_run = False

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by name. Safe to call from several threads at once.

        Raises:
            ModelError: OpenVINO cannot compute it.
        """
        if not self._has_run:
            # Its bindings make static objects in their first call, and hand over the GIL meanwhile: a second
            # call then holds the GIL and waits for those, and the first one waits for the GIL (2026.4.1).
            with self._alone:
                found = self._run(feeds)
            self._has_run = True
            return found
        return self._run(feeds)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            request = self._idle.get_nowait()
        except Empty:  # as many are made as ever run at once
            request = next(self._turn).create_infer_request()
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


def _quantize_pixels(network: Any) -> None:
    """Tells OpenVINO of an int8 model whose first convolution reads the photo's own uint8 that these are
    quantised values: else it computes that layer in float32 (of ResNet50 9 of 58 ms).

    It believes this of what an operation rounds to uint8, unless that operation changes nothing. So 1/1024 is
    taken off each pixel, which the rounding gives back: the integers stay the same.
    """
    from openvino import opset13 as operations

    if not any(node.get_type_name() == "FakeQuantize" for node in network.get_ops()):
        return  # no int8 model
    pixels = network.inputs[0].get_node().output(0)
    while len(readers := pixels.get_target_inputs()) == 1:
        [reader] = readers
        node = reader.get_node()
        if node.get_type_name() == "Convert":
            break
        if node.get_output_size() != 1:
            return
        pixels = node.output(0)
    else:
        return
    converted = node.output(0)
    readers = converted.get_target_inputs()
    after = [_after_scaling(reader.get_node()) for reader in readers]
    if not after or set(after) - {"Convolution", "GroupConvolution"}:
        return  # preprocessing, which an operation that rounds follows
    less = operations.subtract(converted, np.float32(2**-10))
    low, high = np.float32(0), np.float32(255)
    quantized = operations.fake_quantize(less, low, high, low, high, 256)
    for reader in readers:
        reader.replace_source_output(quantized.output(0))


def _after_scaling(node: Any) -> str:
    """The kind of the one node that reads what these nodes of a DequantizeLinear make; "" for several."""
    while node.get_type_name() in ("Subtract", "Multiply"):
        readers = node.output(0).get_target_inputs()
        if len(readers) != 1:
            return ""
        [reader] = readers
        node = reader.get_node()
    return str(node.get_type_name())


def _computes_weights(compiled: Any) -> bool:
    """Whether it computes constants when it is compiled, as the float32 weights of a layer of an int8 model
    that it does not compute in int8.

    Then streams of one compiled model hinder each other: of 300 small int8 models 23 had wrong weights and
    answered nonsense from then on (2026.4.1); with one stream none of 300. Constants that are only moved are
    right.
    """
    constant: set[str] = set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        kind = node.get_rt_info()["layerType"].astype(str)
        sources = [value.get_source_output().get_node().get_friendly_name() for value in node.inputs()]
        if kind == "Const" or (sources and constant.issuperset(sources)):
            if kind not in ("Const", "Reshape", "Transpose", "Reorder"):
                return True
            constant.add(node.get_friendly_name())
    return False


def _sizes(value: Any) -> list[Any]:
    return [size.get_length() if size.is_static else "batch" for size in value.partial_shape]


def _kind(value: Any) -> str:
    names = {"u8": "uint8", "f32": "float", "f16": "float16"}
    name = value.element_type.get_type_name()
    return f"tensor({names.get(name, name)})"


def _short(error: Exception) -> str:
    """Its words in one line."""
    return " ".join(str(error).split())[:200]
