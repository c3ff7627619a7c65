"""Graph and pixels to a better graph."""
