"""Formats of files, a module each, which but for its function ``make`` imports nothing of Reflux."""
