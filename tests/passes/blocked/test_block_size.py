"""A processor without blocked kernels."""

from birdsonnx.errors import ModelError
from birdsonnx.passes.blocked import block_size as module
from birdsonnx.passes.blocked.block_size import block_size


def test_a_runtime_without_blocked_kernels(monkeypatch):
    def refuse(model: bytes) -> None:
        raise ModelError("no such operation")

    monkeypatch.setattr(module, "Session", refuse)
    assert block_size.__wrapped__() == 1
