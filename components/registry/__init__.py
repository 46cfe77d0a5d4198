"""All that touches the model registry: register, decide, promote, roll back, predict."""
