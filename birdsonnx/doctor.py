"""What this installation and this machine can do, and what does not work."""

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from birdsonnx import __version__
from birdsonnx.extras import how_to_install
from birdsonnx.inference import engines
from birdsonnx.onednn import library
from birdsonnx.onednn.library import OnednnError
from birdsonnx.runtime import gradient_builder, isa, launchers, ranks, threads

BASE = ("numpy", "onnx", "h5py", "Pillow", "pydantic", "rich", "simplejpeg", "typer")
EXTRAS = {
    "export": ("tensorflow-cpu", "keras", "tf2onnx"),
    "mpi": ("mpi4py", "mpich"),
    "plot": ("matplotlib",),
    "report": ("Jinja2",),
    "serve": ("starlette", "uvicorn", "python-multipart"),
    "opencv": ("opencv-python-headless",),
    "heic": ("pillow-heif",),
    "openvino": ("openvino",),
    "bf16": ("onednn-cpu-gomp",),
}


def examine() -> dict[str, Any]:
    """Versions, machine and problems, ready for JSON. `problems` is empty where all is well."""
    problems: list[str] = []
    runtimes = {
        name: found
        for name in ("onnxruntime", "onnxruntime-training-cpu", "onnxruntime-training", "onnxruntime-gpu")
        if (found := _version(name))
    }
    if len(runtimes) > 1:
        problems.append(
            f"{' and '.join(runtimes)} are both installed and overwrite each other's files: uninstall all of "
            "them, then install onnxruntime-training-cpu==1.19.2 alone"
        )
    if not runtimes:
        problems.append("no onnxruntime is installed: install birdsonnx again")
    if _version("tensorflow") and _version("tensorflow-cpu"):
        problems.append("tensorflow and tensorflow-cpu are both installed; keep one")
    launched = launchers.launched_processes()
    mpi = _mpi(problems)
    onednn = _onednn(problems)
    return {
        "birdsonnx": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in BASE},
        "runtime": runtimes,
        "training": bool(runtimes),
        "fine_tuning": gradient_builder.is_installed() or onednn is not None,
        "engine": engines.rule(),
        "onednn": onednn,
        "bf16_training": onednn is not None and isa.is_bf16_fast(),
        "extras": {
            extra: {name: _version(name) for name in names} | _alternative(extra)
            for extra, names in EXTRAS.items()
        },
        "cpu": isa.cpuinfo("model name"),
        "cores": len(threads.available_cores()),
        "cgroup_cores": threads.cgroup_cores(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "memory_gb": _memory_gb(),
        "isa": list(isa.extensions()),
        "mpi": mpi,
        "launched_processes": launched,
        "problems": problems,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same as lines for people."""
    packages = ", ".join(f"{name} {number or 'missing'}" for name, number in found["packages"].items())
    limit = found["cgroup_cores"]
    text = [
        f"birdsonnx    {found['birdsonnx']} on Python {found['python']}, {found['platform']}",
        f"packages     {packages}",
        f"runtime      {', '.join(map(' '.join, found['runtime'].items())) or 'missing'}" + _abilities(found),
    ]
    for extra, names in found["extras"].items():
        present = ", ".join(f"{name} {number}" for name, number in names.items() if number)
        missing = [name for name, number in names.items() if number is None]
        hint = f"; missing {', '.join(missing)}: {how_to_install(extra)}" if missing else ""
        text.append(f"{extra:<12} {present or '-'}{hint}")
    text += [
        f"engine       {found['engine']}",
        f"fine-tuning  {_fine_tuning(found)}",
        f"CPU          {found['cpu'] or 'unknown'}",
        f"cores        {found['cores']} of this process"
        + (f", limited to {limit:g} by the container" if limit else "")
        + (f"; OMP_NUM_THREADS={found['omp_num_threads']}" if found["omp_num_threads"] else ""),
        f"memory       {found['memory_gb']:.1f} GB",
        f"ISA          {', '.join(found['isa']) or 'unknown'}"
        + ("" if isa.has_int8_products() else " (no VNNI)"),
        f"MPI          {found['mpi'] or 'not installed'}",
    ]
    return text + [f"problem      {problem}" for problem in found["problems"]]


def _onednn(problems: list[str]) -> str | None:
    """The version of the library that can train convolutions, where there is one."""
    try:
        return library.load().version
    except OnednnError as error:
        if os.environ.get(library.VARIABLE):
            problems.append(str(error))
        return None


def _fine_tuning(found: dict[str, Any]) -> str:
    """What trains convolutions here, by the default and by `auto`."""
    if found["onednn"] is None:
        return "ONNX Runtime" if found["fine_tuning"] else "-"
    by_onednn = isa.is_onednn_faster() or not gradient_builder.is_installed()
    default = f"oneDNN {found['onednn']}" if by_onednn else "ONNX Runtime"
    if found["bf16_training"]:
        return f"{default}; in bf16, which is faster here: oneDNN {found['onednn']}"
    return f"{default}; bf16 is no faster here" if isa.has_bf16() else f"{default}; this CPU has no bf16"


def _abilities(found: dict[str, Any]) -> str:
    if not found["training"]:
        return ""
    if found["fine_tuning"]:
        return " (predicts, trains heads and fine-tunes)"
    return f" (predicts and trains heads; fine-tuning needs {gradient_builder.WHERE}, or oneDNN)"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _alternative(extra: str) -> dict[str, str]:
    """Installed packages that do the same as those of an extra."""
    others = {"export": ("tensorflow",), "mpi": ("openmpi",), "opencv": ("opencv-python",)}
    return {name: found for name in others.get(extra, ()) if (found := _version(name))}


def _mpi(problems: list[str]) -> str | None:
    try:
        mpi = ranks.import_mpi()
    except (ImportError, RuntimeError):
        return None
    library = ranks.library_of(mpi)
    beside = Path(sys.executable).parent / "mpirun"
    found = shutil.which("mpirun")
    if found is None and not beside.exists():
        problems.append("mpi4py is installed, but there is no mpirun: pip install mpich")
    elif found is not None and beside.exists() and Path(found).resolve() != beside.resolve():
        problems.append(f"mpirun on PATH is {found}; the one that fits this Python is {beside}")
    launched, size = launchers.launched_processes(), mpi.COMM_WORLD.Get_size()
    if launched > 1 and size == 1:
        problems.append(
            f"{launched} processes were launched, but {library} sees each one alone: foreign mpirun"
        )
    return f"{library}, mpirun {found or beside}"


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
