"""MLflow, Prefect and DVC's remote under growing loads: what a retrain costs them, and how fast they answer."""
