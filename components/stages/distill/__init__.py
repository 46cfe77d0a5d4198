"""Distillation: the student learns from the teacher's soft labels, alone or with the hard labels."""
