"""Domain adaptation: a labeled source domain teaches, and its features and the unlabeled images' are made alike."""
