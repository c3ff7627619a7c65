"""Where a page was made: the machine and the packages."""

import platform
from importlib.metadata import PackageNotFoundError, version

from birdsonnx import __version__
from birdsonnx.runtime import isa, threads

PACKAGES = ("onnxruntime-training-cpu", "onnxruntime", "openvino", "numpy", "onnx", "pillow", "simplejpeg")
"""That numbers or pixels may depend on."""


def facts() -> tuple[tuple[str, str], ...]:
    """What, and what it is."""
    limit = threads.cgroup_cores()
    cores = f"{len(threads.available_cores())}" + (
        f", limited to {limit:g} by the container" if limit else ""
    )
    found = ((name, _version(name)) for name in PACKAGES)
    return (
        ("CPU", isa.cpuinfo("model name") or platform.processor() or "unknown"),
        ("Cores", cores),
        ("System", platform.platform()),
        ("Python", platform.python_version()),
        ("birdsonnx", __version__),
        *((name, number) for name, number in found if number),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
