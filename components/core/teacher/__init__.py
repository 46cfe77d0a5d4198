"""What a teacher can be asked for: soft labels, features, the mean of several."""
