"""Dataset shift: a champion's reference data, the tests, the report."""
