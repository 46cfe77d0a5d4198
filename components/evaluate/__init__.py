"""Evaluate: how good the files that ship are, on images that no choice was made on."""
