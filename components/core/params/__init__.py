"""``params.yaml``, parsed once into frozen pydantic models."""
