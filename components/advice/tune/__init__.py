"""Tune: the students that pass the gates, searched on stored soft labels and validation images alone."""
