"""What ``reflux doctor`` reports: a line for each thing that it looked at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: what was looked at.
        found: what is there.
        mend: how to mend it; empty when all is well.
    """

    what: str
    found: str
    mend: str = ""
