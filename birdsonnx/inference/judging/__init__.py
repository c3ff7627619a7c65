"""By what it is decided what is said of a photo: species that can occur, thresholds, a taxonomy."""
