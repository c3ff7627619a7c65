"""Graph and pixels to numbers: the forward pass over photos, prediction, HDF5, evaluation."""
