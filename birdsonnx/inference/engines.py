"""Which engine computes a model here, and the model in the form that is fastest on it.

One file serves both: it is written as ONNX Runtime is fastest without changes, and each engine changes it in
memory where another form is faster on it.
"""

from collections.abc import Callable

from birdsonnx.config.computing import EngineChoice, EngineName
from birdsonnx.errors import ConfigError, InstallationError, ModelError
from birdsonnx.extras import how_to_install
from birdsonnx.inference import forms
from birdsonnx.inference.forms import Form
from birdsonnx.runtime import isa, openvino_engine
from birdsonnx.runtime.engine import Engine
from birdsonnx.runtime.sessions import Session

QUANTIZED = b"QuantizeLinear"
"""The operation that an int8 model's file holds."""

VNNI_ALONE = 2000
"""Photos that repay, without AMX, OpenVINO's longer start."""


def is_openvino_installed() -> bool:
    """Whether its package is there; whether it works shows when a model is opened."""
    return openvino_engine.installed_version() is not None


def choose(wanted: EngineChoice, bf16: bool, photos: int, is_quantized: Callable[[], bool]) -> EngineName:
    """The engine for so many photos; `auto` takes the one that is fastest by measurements.

    Args:
        wanted: what was asked for.
        bf16: whether to compute in bf16, which OpenVINO alone does.
        photos: of all ranks.
        is_quantized: tells whether the model is int8; asked only where it decides.

    Raises:
        InstallationError: OpenVINO is asked for and not installed.
        ConfigError: bf16 is asked for of ONNX Runtime, or of a CPU without it.
    """
    if bf16 and wanted == "onnxruntime":
        raise ConfigError("bf16 is computed by OpenVINO alone; do not choose the engine onnxruntime for it")
    fewest = fewest_for_openvino()
    if wanted == "onnxruntime" or (wanted == "auto" and not bf16 and (fewest is None or photos < fewest)):
        return "onnxruntime"
    if not is_openvino_installed():
        if wanted == "auto" and not bf16:
            return "onnxruntime"
        what = "bf16 is computed by OpenVINO, which" if bf16 else "OpenVINO"
        raise InstallationError(f"{what} is not installed: {how_to_install('openvino')}")
    if bf16 and not openvino_engine.computes_bf16():
        raise ConfigError(
            "this CPU does not compute in bf16 (it takes AVX512_BF16 or AMX); leave bf16 out, or take int8"
        )
    return "openvino" if wanted == "openvino" or bf16 or is_quantized() else "onnxruntime"


def choosable(wanted: EngineChoice, bf16: bool, is_quantized: bool) -> tuple[EngineName, ...]:
    """The engines to measure for what is asked for. Raises as `choose` does."""
    both = is_openvino_installed() and not (is_quantized and isa.adds_in_16_bits())
    if wanted == "auto" and not bf16 and both:
        return ("onnxruntime", "openvino")
    return (choose(wanted, bf16, forms.MANY, lambda: is_quantized),)


def fewest_for_openvino() -> int | None:
    """Photos from which `auto` gives an int8 model to OpenVINO; None: it never does.

    It takes 0.6 s more to start. With AMX it saves 2.4 ms a photo of ResNet50 on 2 cores, with VNNI alone
    0.4 ms. On CPUs without VNNI it would save 13 ms, but adds up products in 16 bits, where sums can overflow
    unnoticed; ONNX Runtime's are exact there by `exact_sums`. In float32 ONNX Runtime is level or ahead.
    """
    if isa.adds_in_16_bits():
        return None
    return forms.MANY if isa.has_amx() else VNNI_ALONE


def rule() -> str:
    """What `auto` does here, in words."""
    fewest = fewest_for_openvino()
    if not is_openvino_installed():
        if fewest is None:
            return "ONNX Runtime"
        return (
            "ONNX Runtime; OpenVINO, which computes int8 faster, is not installed: "
            f"{how_to_install('openvino')}"
        )
    if fewest is None:
        return "ONNX Runtime; OpenVINO where it is asked for (its int8 sums can overflow on this CPU)"
    bf16 = ", and for bf16" if isa.has_bf16() else ""
    return f"ONNX Runtime; OpenVINO for int8 models from {fewest} photos on{bf16}"


def opened(content: bytes, where: str, form: Form, photos: int = forms.MANY, bf16: bool = False) -> Engine:
    """A model that was found sound, opened by the engine of `form` for so many photos.

    Raises:
        EngineError: OpenVINO cannot run it.
        ModelError: ONNX Runtime cannot load it.
    """
    if form.engine == "openvino":
        return openvino_engine.OpenVINO(content, form.streams, form.threads, form.per_run, bf16, where)
    if photos >= forms.MANY or isa.adds_in_16_bits():
        content = fastest(content)
    try:
        return Session(content, form.threads, where)
    except ModelError:
        _explain(content, where)
        raise


def fastest(content: bytes, amx: bool | None = None) -> bytes:
    """A model in the form that is fastest by ONNX Runtime on this CPU, or on one with or without AMX units;
    on a CPU without VNNI an int8 model gets the form whose sums are exact there.

    What cannot be parsed stays as it is, for `Session` to refuse.
    """
    exact = isa.adds_in_16_bits()
    if QUANTIZED not in content or not (exact or (isa.has_amx() if amx is None else amx)):
        return content
    # Not at the top: prediction itself starts faster without onnx.
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import load_model_from_string

    from birdsonnx.passes.uint8_weights import exact_sums, sums_on_amx

    try:
        model = load_model_from_string(content)
    except (DecodeError, ValueError, TypeError):
        return content
    changed = (exact_sums if exact else sums_on_amx)(model).applied
    return bytes(model.SerializeToString()) if changed else content


def _explain(content: bytes, where: str) -> None:
    """Raises ModelError in our own words where the onnx package sees what is wrong with a model."""
    from birdsonnx.model import model_file  # not at the top: prediction itself starts faster without onnx

    model_file.parse(content, where)
