"""Observation of what runs: boards, drift and metrics."""
