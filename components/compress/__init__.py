"""Compress: the student as the files that ship, each proven equal to it."""
