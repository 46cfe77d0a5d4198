"""A pipeline run in MLflow, as the boards show it."""

from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.journal import Journal
from reflux.components.observe.boards import declared


def retrain(**metrics: float) -> None:
    """A pipeline run that has every metric the boards show, and others."""
    names = frozenset().union(*(board.metrics() for board in declared.BOARDS.values() if board is not declared.CURVES))
    journal = Journal("demo", "retrain", {"run_kind": "pipeline"})
    journal.metrics(dict.fromkeys(names, 0.5) | metrics, step=None)
    journal.end("FINISHED")
    training = Journal("demo", "distill", {"run_kind": "stage", "role": "student"}, parent=journal.id)
    training.metrics(dict.fromkeys(declared.CURVES.metrics(), 0.5))
    training.end("FINISHED")
    assert tracking.deliver() == 0
