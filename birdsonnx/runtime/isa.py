"""Instruction set extensions of this CPU that decide how fast a network runs."""

from functools import cache
from pathlib import Path

FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
CPUINFO = Path("/proc/cpuinfo")
INTEL = "GenuineIntel"


def cpuinfo(field: str) -> str:
    """A field of the first core in Linux' list of CPUs; empty on other systems."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == field), "")


@cache
def extensions() -> tuple[str, ...]:
    """Those of `FLAGS` that the CPU has; empty where the system does not list them."""
    flags = cpuinfo("flags").split()
    return tuple(flag for flag in FLAGS if flag in flags)


def has_int8_products() -> bool:
    """Whether int8 is much faster than float32 here: VNNI or AMX."""
    return any("vnni" in flag or flag == "amx_int8" for flag in extensions())


def adds_in_16_bits() -> bool:
    """Whether the runtime adds two int8 products in 16 bits here and cuts off what does not fit, as it does
    on x86 without VNNI (its documentation of quantisation: U8S8 saturates)."""
    return "avx2" in extensions() and not has_int8_products()


def has_bf16() -> bool:
    """Whether there are instructions for bfloat16."""
    return any("bf16" in flag for flag in extensions())


def is_bf16_fast() -> bool:
    """Whether products of bfloat16 take less time than those of float32: with AMX, and with AMD's
    AVX512_BF16. Intel's has half the rate of AVX-512 (85 against 175 GFLOP/s of a core of an Emerald
    Rapids)."""
    return "amx_bf16" in extensions() or ("avx512_bf16" in extensions() and cpuinfo("vendor_id") != INTEL)


def is_onednn_faster() -> bool:
    """Whether oneDNN's convolutions and their gradients take less time than ONNX Runtime's in float32.

    On an Intel CPU with AVX-512 (Emerald Rapids, CPU time) they take 0.8 of ResNet50's, 0.75 of ResNet50V2's,
    VGG16's and InceptionV3's, 0.6 of DenseNet121's and EfficientNetB0's, 0.45 of MobileNetV2's. On AMD's
    Zen 4 ResNet50 is level.
    """
    return "avx512f" in extensions() and cpuinfo("vendor_id") == INTEL


def has_amx() -> bool:
    """Whether there are AMX units for int8."""
    return "amx_int8" in extensions()
