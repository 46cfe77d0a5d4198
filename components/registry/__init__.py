"""The model registry: register, decide, promote, roll back, predict."""
