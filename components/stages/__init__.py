"""Stages of the pipeline: each reads artifacts and params, and leaves artifacts for the next."""
