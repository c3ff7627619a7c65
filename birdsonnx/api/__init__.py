"""birdsonnx for programs: what the verbs `predict`, `evaluate`, `train` and `export` do, as functions.

A program that mpirun started works like the verbs: every rank calls the same function with the same
arguments, the ranks share the work, and each of them gets the whole result.
"""

from birdsonnx.api.exporting import export
from birdsonnx.api.model import Model, load
from birdsonnx.api.training import train

__all__ = ["Model", "export", "load", "train"]
