"""Supplies the teacher's starting weights, with their origin."""
