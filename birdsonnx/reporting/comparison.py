"""Architectures beside each other, as text."""

from birdsonnx.training.comparing import Comparison


def comparison_lines(comparison: Comparison) -> list[str]:
    """A line for each architecture, the most accurate first; `*` marks the front."""
    width = max(len("architecture"), *(len(row.arch) for row in comparison.rows))
    lines = [
        f"  {'architecture':<{width}}  accuracy       95 %     loss  images/s     MB  trained s",
    ]
    for row in comparison.rows:
        low, high = row.accuracy_interval
        mark = "*" if row.on_front else " "
        lines.append(
            f"{mark} {row.arch:<{width}}  {row.accuracy:>8.4f}  {low:.2f}-{high:.2f}  "
            f"{row.loss:>7.4f}  {row.images_per_second:>8.1f}  {row.bytes / 1e6:>5.1f}  "
            f"{row.training_seconds:>9.1f}"
        )
    streams = sorted({row.streams for row in comparison.rows})
    return [
        *lines,
        "",
        "* no other is at least as accurate and as fast, and better in one",
        f"{comparison.test_photos:,} test photos; images/s from photo files, one process on "
        f"{' or '.join(map(str, streams))} core{'s' * (streams != [1])}; trained s with the features, unless "
        "cached",
    ]
