"""Kinds of examples, a package each; nothing outside of one names it."""
