"""``reflux data add`` and ``reflux run`` on many real image sets, with no other argument."""
