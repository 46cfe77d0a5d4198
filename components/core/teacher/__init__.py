"""The teacher: its logits and features, ensembles, and the store of soft labels."""
