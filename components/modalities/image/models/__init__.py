"""Networks that take raw pixels, and the precision they compute in."""
