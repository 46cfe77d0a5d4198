"""The files that ship: torch.export program, ONNX file, and how fast they answer."""
