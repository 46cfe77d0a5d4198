"""Pretrain: the starting weights of the teacher and the student, with their origin."""
