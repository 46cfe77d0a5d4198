"""The exact views: pure functions of seed, image and number."""
