import logging

import pytest
from rich.console import Console
from rich.text import Text

from reflux.components.core.contract import STEPS
from reflux.flows.outcome import StageOutcome
from reflux.flows.report.display import (
    Display,
    LiveDisplay,
    Row,
    accuracy_text,
    console,
    current_display,
    duration,
    progress_text,
    show_on,
)

EVENT = {
    "stage": "finetune",
    "label": "linear probe",
    "unit": "images",
    "done": 1200,
    "total": 6000,
    "rate": 800.0,
    "facts": {"val_accuracy": 0.8123},
}


@pytest.fixture
def printed() -> list[str]:
    return []


@pytest.fixture
def display(printed) -> Display:
    return Display(printed.append, logging.getLogger("test"))


def test_progress_has_rate_and_time_left():
    assert progress_text(EVENT) == (
        "linear probe 1,200/6,000 images, 800 images/s, 6 s left, validation accuracy 0.8123"
    )
    assert (
        progress_text(EVENT | {"done": 6000, "rate": 2.5, "facts": {}})
        == "linear probe 6,000/6,000 images, 2.5 images/s"
    )
    assert progress_text(EVENT | {"done": 0, "rate": 0.0, "facts": {}}) == "linear probe 0/6,000 images"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text


def test_accuracy_is_drawn_as_it_grows():
    assert accuracy_text(Row()) == ""
    assert accuracy_text(Row(accuracy=[0.1, 0.5, 0.9])) == "validation accuracy 0.900 ▁▄█"
    assert accuracy_text(Row(accuracy=[0.5])) == "validation accuracy 0.500 ▁"


def test_without_a_terminal_there_is_a_line_a_start_an_end_and_now_and_then_progress(display, printed, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("reflux.flows.report.display.time.monotonic", lambda: clock[0])
    display.begin("finetune")
    display.executing("finetune")
    for _ in range(12):
        clock[0] += 1
        display.event("finetune", EVENT)
    display.event("finetune", EVENT | {"done": 6000})
    display.end("finetune", StageOutcome.RAN)
    display.begin("label")
    display.end("label", StageOutcome.CACHED)
    progress = f"finetune: {progress_text(EVENT)}"
    assert printed == ["finetune: started", progress, progress, "finetune: done in 12.0 s", "label: unchanged"]


def test_a_stages_warnings_are_for_people_and_its_other_lines_for_the_log(display, printed, caplog):
    with caplog.at_level(logging.INFO):
        display.line("validate", "Warning: 3 near-duplicates.")
        display.line("validate", "a detail")
    assert printed == ["validate: 3 near-duplicates."]
    assert caplog.messages == ["validate: Warning: 3 near-duplicates.", "validate: a detail"]


def test_a_terminal_that_went_away_does_not_stop_the_run():
    def broken(_):
        raise BrokenPipeError

    display = Display(broken, logging.getLogger("test"))
    display.begin("ingest")
    display.executing("ingest")
    display.end("ingest", StageOutcome.RAN)
    assert display.rows["ingest"].state == "ran"


def test_what_names_would_make_a_terminal_do_is_shown_instead(capsys):
    screen = console()
    screen.print(Text("a\x1b[2J\u202e.png", style="bold"))
    screen.print("two\nlines")
    out = capsys.readouterr().out
    assert r"a\x1b[2J\u202e.png" in out
    assert out.endswith("two\nlines\n")
    assert not {"\x1b", "\u202e"} & set(out)


def test_the_live_list_shows_every_stage_and_its_state():
    console = Console(width=140, force_terminal=True, color_system=None, record=True)
    live = LiveDisplay(console, logging.getLogger("test"))
    live.begin("ingest")
    live.end("ingest", StageOutcome.CACHED)
    live.begin("finetune")
    live.executing("finetune")
    live.event("finetune", EVENT)
    live.begin("control")
    live.close("control", "failed")
    console.print(live._draw())
    lines = dict(line.split(None, 1) for line in (x[2:] for x in console.export_text().splitlines()))
    assert list(lines) == list(STEPS)
    assert lines["ingest"].strip() == "unchanged"
    assert "linear probe 1,200/6,000 images, 800 images/s, 6 s left" in lines["finetune"]
    assert "validation accuracy 0.812 ▁" in lines["finetune"]
    assert lines["control"].strip() == "failed"
    assert lines["promote"].strip() == "waiting"


def test_a_flow_finds_the_display_of_its_caller(display):
    assert current_display() is None
    with show_on(display):
        assert current_display() is display
    assert current_display() is None


def test_the_share_that_is_done_counts_stages_and_the_part_of_those_at_work():
    display = Display(lambda _: None, logging.getLogger("test"))
    assert display.progress() == (0.0, "starting")
    display.begin("ingest")
    display.executing("ingest")
    display.event("ingest", EVENT | {"done": 50, "total": 100})
    share, text = display.progress()
    assert share == 0.5 / len(display.rows)
    assert text.startswith("ingest: ")
    for name in display.rows:
        display.begin(name)
        display.end(name, StageOutcome.CACHED)
    assert display.progress() == (1.0, "done")


def test_what_another_worker_does_is_told(printed):
    display = Display(printed.append, logging.getLogger("test"), ("finetune", "evaluate"))
    display.elsewhere = "training on the pool gpu"
    assert display.progress() == (0, "training on the pool gpu")
    display.elsewhere = ""
    display.end("finetune", StageOutcome.RAN)
    assert printed == ["finetune: done elsewhere"]
    assert display.progress() == (0.5, "done")
