"""`python -m birdsonnx` and the `birdsonnx` command."""

import signal
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` puts the working folder first: what lies there, among photos of others, is no code of ours.
    del sys.path[0]

from birdsonnx.reporting.terminal import write_line
from birdsonnx.runtime import interruption
from birdsonnx.runtime.launchers import is_first_launched, launched_processes


def main() -> None:
    """Entry point of the `birdsonnx` command. Signals are taken care of before the imports, which take half a
    second."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would print a traceback at the exit
    with interruption.handled():
        if launched_processes() > 1:
            interruption.hold_until_joined()
        try:
            from birdsonnx.cli.app import main as carry_out

            carry_out()
        except SystemExit:
            raise
        except BaseException:  # an import may make an ImportError of a signal
            interrupted = interruption.raised()
            if interrupted is None:
                raise
            if is_first_launched():
                write_line(f"birdsonnx: {interrupted}", error=True)
            sys.exit(128 + interrupted.number)


if __name__ == "__main__":
    main()
