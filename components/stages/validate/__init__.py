"""Checks the data before anything is trained on it: a Great Expectations suite over the manifest."""
