"""What the CPU can do, from what Linux says of it."""

from pathlib import Path

import pytest

from birdsonnx.runtime import isa

HEAD = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some CPU\nflags\t\t: "
TAIL = "\nbugs\t\t: spectre_v1\n\nprocessor\t: 1\nflags\t\t: fpu amx_int8\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd\n"


@pytest.fixture
def cpu(monkeypatch):
    """Puts a CPU in place of this one."""

    def put(text: str | None) -> None:
        path = Path("cpuinfo")
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(isa, "CPUINFO", path)
        isa.extensions.cache_clear()

    yield put
    isa.extensions.cache_clear()


@pytest.mark.parametrize(
    ("text", "extensions", "int8", "amx", "bf16"),
    [
        (f"{HEAD}fpu avx avx2 fma f16c{TAIL}", ("avx2", "fma", "f16c"), False, False, False),
        (f"{HEAD}fpu avx512_vnni avx512f avx2{TAIL}", ("avx2", "avx512f", "avx512_vnni"), True, False, False),
        (f"{HEAD}avx2 avx_vnni{TAIL}", ("avx2", "avx_vnni"), True, False, False),
        (f"{HEAD}amx_bf16 amx_tile amx_int8{TAIL}", ("amx_bf16", "amx_int8"), True, True, True),
        (f"{HEAD}avx512_bf16 amx_bf16 xavx2{TAIL}", ("avx512_bf16", "amx_bf16"), False, False, True),
        (ARM, (), False, False, False),
        ("", (), False, False, False),
        (None, (), False, False, False),
    ],
    ids=["AVX2", "AVX512 VNNI", "AVX VNNI", "AMX", "similar names", "ARM", "empty", "not Linux"],
)
def test_extensions(cpu, text, extensions, int8, amx, bf16):
    cpu(text)
    assert isa.extensions() == extensions
    assert isa.has_int8_products() == int8
    assert isa.has_amx() == amx
    assert isa.has_bf16() == bf16
    assert isa.adds_in_16_bits() == ("avx2" in extensions and not int8)


def test_it_is_read_once(cpu):
    cpu(f"{HEAD}avx2{TAIL}")
    assert isa.extensions() == ("avx2",)
    isa.CPUINFO.write_text(ARM)
    assert isa.extensions() == ("avx2",)
