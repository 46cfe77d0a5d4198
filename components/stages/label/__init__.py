"""The teacher's soft labels, computed once for the exact views the student will see."""
