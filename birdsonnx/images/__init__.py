"""Files to uint8 pixels: folders and labels, decoding, the transform list."""
