"""The files that ship: torch.export program, ONNX file, and their latency."""
