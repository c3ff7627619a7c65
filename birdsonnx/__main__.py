"""`python -m birdsonnx` and the `birdsonnx` command."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` puts the working folder first: what lies there, among photos of others, is no code of ours.
    del sys.path[0]

from birdsonnx.cli.app import main

if __name__ == "__main__":
    main()
