"""The promotion policy as pure functions: gates, slices, the comparison with the champion, the decision."""
