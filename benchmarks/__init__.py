"""Measurements: each is ``python -m benchmarks.<name>``, and writes ``results/<last part of the name>.json``."""
