"""What a trunk is made of: each operation with its derivative."""
