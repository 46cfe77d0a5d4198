"""The outcome of each expectation, as ``result.json`` and as sentences."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reflux.components.core.errors import listed

Severity = Literal["critical", "warning"]
ROWS_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """The outcome of one expectation.

    Attributes:
        severity: ``critical`` stops the run, ``warning`` does not.
        expectation: what is expected, as a sentence.
        success: True if it was met, None if it could not be checked.
        checked: how many rows were checked.
        unexpected: how many of these do not meet it.
        rows: the first ``ROWS_SHOWN`` of those, in words.
        note: why it could not be checked, else empty.
        cost: what it costs that it was not met, where that is known, else empty.
    """

    name: str
    severity: Severity
    expectation: str
    table: str
    success: bool | None
    checked: int
    unexpected: int
    rows: list[str]
    note: str = ""
    cost: str = ""

    def sentence(self, rows: int = ROWS_SHOWN) -> str:
        """The failure, its first rows and its cost: ``known_labels (3 of 15,000: a.png has ... and 2 more)``."""
        examples = ", ".join(self.rows[:rows])
        more = self.unexpected - len(self.rows[:rows])
        words = f"{examples} and {more:,} more" if more > 0 else examples
        cost = f"; {self.cost}" if self.cost else ""
        return f"{self.name} ({self.unexpected:,} of {self.checked:,}: {words}{cost})"


def failed(findings: Sequence[Finding], severity: Severity) -> list[Finding]:
    """The expectations of one severity that were not met."""
    return [f for f in findings if f.severity == severity and f.success is False]


def result(
    findings: Sequence[Finding], fingerprint: str, previous: str | None, class_shift: float | None
) -> dict[str, Any]:
    """The contents of ``result.json``."""
    critical = failed(findings, "critical")
    return {
        "passed": not critical,
        "critical_failures": len(critical),
        "warnings": len(failed(findings, "warning")),
        "fingerprint": fingerprint,
        "previous_fingerprint": previous,
        "class_shift": class_shift,
        "expectations": [asdict(finding) for finding in findings],
    }


def refusal(findings: Sequence[Finding], docs: str) -> str:
    """The sentence that a stopped run ends with."""
    critical = failed(findings, "critical")
    noun = "expectation" if len(critical) == 1 else "expectations"
    which = listed([f.sentence() for f in critical], len(critical))
    return f"The data fails {len(critical)} critical {noun}: {which}; fix the data and run again; the report is {docs}."
