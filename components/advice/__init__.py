"""Advice before time is spent: plans, checks, rankings, searches and speeds."""
