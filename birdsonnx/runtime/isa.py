"""Instruction set extensions of this CPU that decide how fast a network runs."""

from functools import cache
from pathlib import Path

FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
CPUINFO = Path("/proc/cpuinfo")


@cache
def extensions() -> tuple[str, ...]:
    """Those of `FLAGS` that the CPU has; empty where the system does not tell."""
    try:
        flags = CPUINFO.read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return ()
    return tuple(flag for flag in FLAGS if flag in flags)


def has_int8_products() -> bool:
    """Whether int8 is much faster than float32 here: VNNI or AMX."""
    return any("vnni" in flag or "amx" in flag for flag in extensions())


def has_amx() -> bool:
    """Whether there are AMX units for int8."""
    return "amx_int8" in extensions()
