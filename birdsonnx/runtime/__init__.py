"""What the work runs on: MPI ranks, threads, ONNX Runtime sessions."""
