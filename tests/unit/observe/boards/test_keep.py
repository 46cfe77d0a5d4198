from types import SimpleNamespace

import pytest

from reflux.components.observe.boards import keep
from reflux.components.observe.boards.declared import HEALTH, MISTAKES

CHAMPION = "In production: nothing yet."


def experiment(note: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(experiment_id="7", tags={} if note is None else {"mlflow.note.content": note})


def run(id: str, start_ms: int, parent: str | None = None) -> SimpleNamespace:
    tags = {} if parent is None else {"mlflow.parentRunId": parent}
    return SimpleNamespace(info=SimpleNamespace(run_id=id, start_time=start_ms), data=SimpleNamespace(tags=tags))


def test_a_note_begins_with_links_in_one_line_and_keeps_what_people_wrote():
    first = keep.note(experiment("Ask Ada."), CHAMPION, (HEALTH, MISTAKES))
    links, _, champion, *_ = first.split("\n")
    assert links.startswith("Boards: [Retraining health](#/experiments/7/") and " · [Mistakes](" in links
    assert champion == CHAMPION
    assert first.endswith("Ask Ada.")
    assert keep.note(experiment(first), CHAMPION, (HEALTH, MISTAKES)) == first
    assert keep.note(experiment(), CHAMPION, ()).startswith(CHAMPION)


@pytest.mark.parametrize(("newest", "since"), [(1, 40), (2, 20), (3, 10), (9, 10)])
def test_the_newest_retrains_begin_with_their_first_run(newest, since):
    runs = [run("d", 50, "third"), run("c", 40, "third"), run("b", 20, "second"), run("first", 10)]
    assert keep._since_ms(runs, newest) == since


@pytest.mark.parametrize("text", ["no JSON", "[]", "7"])
def test_what_is_no_object_is_read_as_empty(text):
    assert keep._read(text) == {}
    assert keep._read('{"a": 1}') == {"a": 1}
