"""The boards that a team finds in MLflow, and the figures that they show."""
