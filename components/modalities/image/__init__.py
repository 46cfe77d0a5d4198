"""Images: how they are read, seen, shown and learned from."""
