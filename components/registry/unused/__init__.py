"""What nothing in the registry refers to any more."""
