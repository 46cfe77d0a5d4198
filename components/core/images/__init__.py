"""Images on disk: decoded in memory maps, or encoded as they came."""
