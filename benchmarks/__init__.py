"""Measurements: each is ``python -m benchmarks.<name>``, and writes ``results/<name>.json``."""
