"""ONNX Runtime without its training half, which would import PyTorch where that is."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import needs_training_runtime


def run(tmp_path: Path, *lines: str) -> str:
    """Python with a PyTorch beside it that says so when it is imported."""
    (tmp_path / "torch.py").write_text("print('torch')\nraise ImportError")
    code = "\n".join(["import sys", f"sys.path.insert(0, {str(tmp_path)!r})", *lines])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@needs_training_runtime
def test_the_package_alone_looks_for_torch(tmp_path):
    """Else there is nothing to keep out."""
    assert "torch" in run(tmp_path, "import onnxruntime")


def test_torch_is_not_looked_for(tmp_path):
    found = run(
        tmp_path,
        "from birdsonnx.runtime import onnxruntime_package",
        "found = onnxruntime_package.load()",
        "assert onnxruntime_package.load() is found",
        "print(found.InferenceSession.__name__, found.__version__ > '1.')",
        "print(sorted({'onnx', 'onnxruntime.training'} & set(sys.modules)))",
    )
    assert found.splitlines() == ["InferenceSession True", "[]"]


@needs_training_runtime
def test_others_may_still_import_the_training_half(tmp_path):
    found = run(
        tmp_path,
        "from birdsonnx.runtime import onnxruntime_package",
        "onnxruntime_package.load()",
        "import importlib.util",
        "print(importlib.util.find_spec('onnxruntime.training').name)",
    )
    assert found == "onnxruntime.training\n"
