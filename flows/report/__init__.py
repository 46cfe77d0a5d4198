"""What people see of a run: terminal, Prefect page, MLflow note."""
