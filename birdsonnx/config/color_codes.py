"""OpenCV's names of the conversions between colour spaces."""

import re

RGB, BGR, GRAY = "RGB", "BGR", "GRAY"

ORDERS = (RGB, BGR)
"""The same colours; only the order of the channels differs."""


def _color_codes() -> dict[str, tuple[str, str]]:
    """OpenCV's conversions between 8-bit pixels of one and three channels: from what to what, by name."""
    codes = {"RGB2BGR": (RGB, BGR), "BGR2RGB": (BGR, RGB)}
    for order in ORDERS:
        codes |= {f"{order}2GRAY": (order, GRAY), f"GRAY2{order}": (GRAY, order)}
        for space in ("HSV", "HLS", "YCrCb", "YUV", "XYZ", "Lab", "Luv"):
            codes |= {f"{order}2{space}": (order, space), f"{space}2{order}": (space, order)}
        for space in ("HSV", "HLS"):
            full = f"{space}_FULL"
            codes |= {f"{order}2{full}": (order, full), f"{space}2{order}_FULL": (full, order)}
    return codes


COLOR_CODES = _color_codes()

OTHER_PIXELS = re.compile(r"BAYER|RGBA|BGRA|5[56]5|YUV.*_|420|422|LRGB|LBGR")
"""In the names of OpenCV's other conversions: raw camera data, alpha channels, packed or linear pixels."""
