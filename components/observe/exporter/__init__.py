"""Metrics for Prometheus: the champion, the last decision, the last retrain and the data's drift."""
