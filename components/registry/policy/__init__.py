"""Pure functions from figures to a decision: gates, slices, the comparison with the champion."""
