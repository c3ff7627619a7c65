"""The tree explains the program: imports run downwards, and no file or function is too long to read."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "birdsonnx"

ROOMS = (
    "__init__",
    "__main__",
    "cli",
    "api",
    "demo",
    "invented_birds",
    "doctor",
    "serving",
    "reporting",
    "training",
    "inference",
    "keras_io",
    "passes",
    "onednn",
    "model",
    "images",
    "runtime",
    "config",
    "artifacts",
    "extras",
    "errors",
)
"""From the top floor down: a room may know those below it. `__init__`, whose version all may know, imports
the API only where a program asks for it."""

LONGEST_FILE, LONGEST_FUNCTION = 400, 60
"""Lines. A function's options of the command line and its docstring count as well."""

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`birdsonnx.model.graph`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {name_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "birdsonnx":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return found - {"birdsonnx"}


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_every_file_is_in_a_room():
    assert {room_of(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module):
    own = ROOMS.index(room_of(module))
    upwards = [name for name in imports_of(MODULES[module]) if ROOMS.index(room_of(name)) < own]
    assert not upwards


def test_no_files_import_each_other():
    graph = {module: imports_of(path) for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_tensorflow_is_imported_in_one_room():
    heavy = {"tensorflow", "keras", "tf2onnx"}
    for module, path in MODULES.items():
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not names & heavy or room_of(module) == "keras_io", module


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_can_be_read_in_one_sitting(path):
    text = path.read_text()
    assert text.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= LONGEST_FUNCTION, node.name
