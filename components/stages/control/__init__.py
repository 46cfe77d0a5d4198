"""The control: the same student and budget, on labeled images alone."""
