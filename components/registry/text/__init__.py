"""What people read in MLflow: Markdown of versions and decisions, and links."""
