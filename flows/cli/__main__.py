"""``python -m reflux.flows.cli``."""

from reflux.flows.cli import main

main()
