"""Promotions: written down first, then carried out, and finished after a crash."""
