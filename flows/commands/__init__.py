"""The verbs of the ``reflux`` command, one a file."""
