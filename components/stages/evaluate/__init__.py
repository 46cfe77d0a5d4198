"""Evaluate: how good the files that ship are, on test images, which neither trained nor chose them."""
