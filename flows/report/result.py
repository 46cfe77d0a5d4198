"""The result of a pipeline run."""

from dataclasses import dataclass
from typing import Any

from reflux.components.registry.promote import PromotionResult
from reflux.components.registry.register import Registered
from reflux.flows.outcome import StageOutcome


@dataclass(frozen=True)
class Release:
    """The student in the registry.

    Attributes:
        registered: its version; None when MLflow did not answer.
        promotion: the decision on it; None when MLflow did not answer.
        problem: one sentence on why it is not registered or not decided on, and what to do; else None.
    """

    registered: Registered | None
    promotion: PromotionResult | None
    problem: str | None


@dataclass(frozen=True)
class Result:
    """The result of a pipeline run.

    Attributes:
        run_name: the parent run's name in MLflow.
        model_name: the registered model.
        outcomes: what DVC did for each stage.
        metrics: the content of ``metrics.json``.
        release: the registered version and the decision on it.
        seconds: the whole run's wall time.
    """

    run_name: str
    model_name: str
    outcomes: dict[str, StageOutcome]
    metrics: dict[str, Any]
    release: Release
    seconds: float

    @property
    def executed(self) -> list[str]:
        """The stages that were executed, not restored."""
        return [name for name, outcome in self.outcomes.items() if outcome is StageOutcome.RAN]


class NotRegistered(Exception):
    """Everything is trained and measured, but MLflow was away; the next run registers it without training again."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.release.problem)
        self.result = result
