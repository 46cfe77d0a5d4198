"""Prefect, DVC and the command: when and where the stages run. No machine learning."""
