"""Decisions and links as Markdown and addresses."""
