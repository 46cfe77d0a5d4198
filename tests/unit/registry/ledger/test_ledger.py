from datetime import UTC, datetime

from reflux.components.registry.ledger.ledger import Entry, summarize_split
from reflux.components.registry.policy.comparison import Best


def attempt(version: int, outcome: str, champion: int | None = None, model="clothes", action="promote", **figures):
    figures = {name.replace("champion_", "champion/"): value for name, value in figures.items()}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Entry("run", "1", version, action, model, version, outcome, at, "ada", "", champion, "", {}, figures)


def test_every_decision_counts_and_the_best_champion_is_one_that_was_promoted_or_scored_again():
    attempts = [
        attempt(1, "promoted", accuracy=0.8),
        attempt(2, "rejected", champion=1, accuracy=0.99, champion_accuracy=0.85),
        attempt(3, "promoted", model="shoes", accuracy=0.95),
        attempt(1, "rolled back", action="rollback"),
    ]
    assert summarize_split(attempts, "clothes") == (3, Best(1, 0.85))
    assert summarize_split(attempts, "hats") == (3, None)
