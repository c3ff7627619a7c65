"""Keras to graph and back; the only room that imports TensorFlow."""
