"""The shared servers and two workers on one machine, on loopback, without containers: ``up``, ``status``, ``down``."""
