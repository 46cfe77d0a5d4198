"""Entry point of ``up``, ``status``, ``down`` and ``worker``; a script, so that it runs from any folder."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[2])

from infra.local.commands import main  # noqa: E402 - found only after the line above

if __name__ == "__main__":
    main()
