"""The files that can ship: their bytes, losses and times, and networks made for a budget of bytes."""
