"""Where versions are pushed to: OCI registries and the Hugging Face hub."""
