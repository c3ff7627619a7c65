"""How to install what an extra of this package brings, as a command that works wherever the package itself
came from: `pip install 'birdsonnx[plot]'` would ask an index that may not have it."""

import contextlib
import shlex
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, metadata

PACKAGE = "birdsonnx"


def how_to_install(extra: str) -> str:
    """`pip install 'matplotlib>=3.10.8'`: the packages that an extra brings on this platform and Python; or
    why there are none."""
    requirements: list[str] = []
    extras: list[str] = []
    with contextlib.suppress(PackageNotFoundError):
        installed = metadata(PACKAGE)
        requirements = installed.get_all("Requires-Dist") or []
        extras = installed.get_all("Provides-Extra") or []
    if extra not in extras:  # a clone that is not installed, or is newer than what is
        return f"pip install '.[{extra}]' in its source folder"
    packages = sorted(set(_packages(extra, requirements)))
    if not packages:
        return f"the extra '{extra}' has no packages for this Python or platform"
    return f"pip install {shlex.join(packages)}"


def _packages(extra: str, requirements: Iterable[str]) -> Iterator[str]:
    """Those among requirements; extras of our own are what they bring."""
    from packaging.requirements import Requirement  # not at the top: most runs miss nothing

    for text in requirements:
        required = Requirement(text)
        marker = required.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue
        if required.name == PACKAGE:
            for other in required.extras:
                yield from _packages(other, requirements)
        else:
            yield f"{required.name}{required.specifier}"
