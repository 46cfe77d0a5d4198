"""Promotions, written ahead, carried out, and finished after a crash."""
