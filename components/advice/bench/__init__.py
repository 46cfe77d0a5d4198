"""Bench: files of students side by side, each in its own runtime."""
