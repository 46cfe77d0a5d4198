"""Compress: the student as the files that ship, fp32 ones proven equal to it, int8 compared with it."""
