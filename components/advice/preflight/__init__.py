"""Preflight: what can be known before training is checked before training."""
