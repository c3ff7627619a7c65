"""`python -m birdsonnx` and the `birdsonnx` command."""

from birdsonnx.cli.app import main

if __name__ == "__main__":
    main()
