"""What shared servers take of a retrain, and how they answer when there are many."""
