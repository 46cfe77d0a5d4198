"""The control: the same student and budget, on the labelled images alone."""
