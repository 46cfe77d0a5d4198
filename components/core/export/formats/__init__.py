"""Formats of files, a module each, which but for its function ``make`` imports nothing of Reflux.

A version of a model carries its format's module as its code for MLflow, and that module alone: so what two formats
need alike, such as the class that MLflow serves, stands in each.
"""
