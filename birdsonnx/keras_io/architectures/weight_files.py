"""Which file of a folder holds which network's weights, by the names that Keras gives to its downloads."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from birdsonnx.config.wording import nearest_path
from birdsonnx.errors import ConfigError
from birdsonnx.keras_io.architectures import DEFAULT_SIZES

SUFFIX, WITHOUT_TOP = ".h5", "notop"
BEFORE = "weights"
"""What Keras writes before the names of MobileNetV3."""


def of_networks(place: str, names: Sequence[str]) -> dict[str, Path]:
    """The file of each network, by Keras' spelling of its name.

    Args:
        place: a folder, a glob pattern, or one file.
        names: of the networks.

    Raises:
        ConfigError: none there, none for a network, or several.
    """
    path = Path(place)
    if path.is_file() and len(names) == 1:
        return {names[0]: path}
    files = _files(path, place)
    found = {}
    for name in names:
        own = [file for file in files if network_of(file) == name]
        if len(own) != 1:
            what = (
                f"{len(own)} files with weights of {name} ({', '.join(map(str, own))}); name"
                if own
                else (f"no file with weights of {name}; call it {name.lower()}_{WITHOUT_TOP}{SUFFIX}, name")
            )
            raise ConfigError(f"--weights {place}: {what} one with a pattern, or take --weights none")
        found[name] = own[0]
    return found


def network_of(file: Path) -> str | None:
    """The network whose weights without a top a file's name says it holds, in Keras' spelling: the longest of
    the names that begin it, so that `mobilenet_v2_…_no_top.h5` is not MobileNet's."""
    letters = _letters(file.stem).removeprefix(BEFORE)
    if WITHOUT_TOP not in letters or file.suffix.lower() != SUFFIX:
        return None
    return max((name for name in DEFAULT_SIZES if letters.startswith(name.lower())), key=len, default=None)


def _letters(text: str) -> str:
    return "".join(each for each in text.lower() if each.isalnum())


def _files(path: Path, place: str) -> list[Path]:
    found: Iterable[Path]
    if path.is_dir():
        found = path.iterdir()
    elif glob.has_magic(place):
        found = map(Path, glob.glob(place))  # noqa: PTH207 - may be absolute
    elif path.is_file():
        found = [path]
    else:
        raise ConfigError(
            f"--weights {place}: this is neither imagenet nor none, nor a folder, pattern or file"
            f"{nearest_path(path)}"
        )
    return sorted(each for each in found if each.is_file())
