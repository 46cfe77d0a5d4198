"""The Prefect tasks of a pipeline run, and what a deployment adds around them."""
