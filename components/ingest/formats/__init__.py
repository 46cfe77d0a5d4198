"""The formats of datasets, a module each, and what those kept in tables share: columns and labels."""
