from datetime import UTC, datetime

import pytest

from reflux.components.registry.history import by_hand
from reflux.components.registry.ledger.ledger import PROMOTED, Entry

AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def move(version: int, champion: int | None) -> Entry:
    """A promotion of ``version`` over ``champion``."""
    return Entry("run", "1", version, "promote", "clothes", version, PROMOTED, AT, "ada", "", champion, "", {}, {})


@pytest.mark.parametrize(
    ("moves", "aliases", "sentences"),
    [
        ([], {}, []),
        ([], {"champion": 1}, ["Version 1 became champion without an entry in the ledger."]),
        ([move(2, 1), move(1, None)], {"champion": 2, "previous": 1}, []),
        (
            [move(1, None)],
            {"champion": 3},
            [
                "The alias champion was moved by hand: it is version 3, where the ledger's last move, by ada at "
                "2026-01-02 03:04 UTC, put version 1."
            ],
        ),
        (
            [move(2, 1)],
            {"champion": 2},
            [
                "The alias previous was moved by hand: it is none, where the ledger's last move, by ada at "
                "2026-01-02 03:04 UTC, put version 1."
            ],
        ),
        (
            [move(3, 2), move(1, None)],
            {"champion": 3, "previous": 2},
            [
                "The alias champion was moved by hand, from version 1 to version 2, between 2026-01-02 03:04 and "
                "2026-01-02 03:04 UTC."
            ],
        ),
    ],
)
def test_each_alias_that_the_ledger_did_not_move_is_named(moves, aliases, sentences):
    assert by_hand(moves, aliases) == sentences
