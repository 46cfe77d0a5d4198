"""The model card: what it says, and how it is written."""
