"""The pipeline's progress for people: a live list of stages on a terminal, plain lines elsewhere."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from reflux.components.core.contract import STEPS
from reflux.components.core.errors import printable
from reflux.flows.outcome import StageOutcome

if TYPE_CHECKING:
    from reflux.flows.report.spans import Spans

State = Literal["waiting", "checking", "running", "ran", "cached", "failed", "skipped"]

_SECONDS_BETWEEN_LINES = 5.0
_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 16
_BAR_WIDTH = 24
_LOG_WIDTH = 120
_WIDTHS = (1, 8, _BAR_WIDTH, 44, 0)  # columns that keep their places while bars come and go
_MARKS = {"ran": "[green]✓[/]", "cached": "[cyan]✓[/]", "failed": "[red]✗[/]", "skipped": "[yellow]-[/]"}
_DIM = "bright_black"


@dataclass
class Row:
    """One stage in the list."""

    state: State = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    event: dict[str, Any] = field(default_factory=dict)
    accuracy: list[float] = field(default_factory=list)
    printed: float = 0.0


class Display:
    """Follows a run and prints its progress line by line; safe to call from several threads.

    Args:
        say: prints one line for people.
        logger: receives everything the stages print.
        stages: the stages of the run.

    Attributes:
        elsewhere: what another worker does for this run at the moment.
        spans: follow the stages for the run's trace, if it has one.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        logger: "logging.Logger | logging.LoggerAdapter[Any]",
        stages: Sequence[str] = STEPS,
    ) -> None:
        self._say, self.logger = say, logger
        self.rows = {stage: Row() for stage in stages}
        self.elsewhere = ""
        self.spans: Spans | None = None
        self._lock = threading.RLock()

    def begin(self, stage: str) -> None:
        """A stage starts: DVC checks whether anything has changed."""
        with self._lock:
            row = self.rows[stage]
            if row.state in ("waiting", "failed"):
                row.state, row.began, row.event = "checking", time.monotonic(), {}
                if self.spans is not None:
                    self.spans.begin(stage)

    def executing(self, stage: str) -> None:
        with self._lock:
            row = self.rows[stage]
            row.state, row.printed = "running", time.monotonic()
            self.print_progress(f"{stage}: started")

    def event(self, stage: str, event: dict[str, Any]) -> None:
        with self._lock:
            row = self.rows[stage]
            row.event = event
            accuracy = event.get("facts", {}).get("val_accuracy")
            if accuracy is not None and row.accuracy[-1:] != [accuracy]:
                row.accuracy.append(accuracy)
            now = time.monotonic()
            under_way = 0 < event["done"] < event["total"]
            if under_way and now - row.printed >= _SECONDS_BETWEEN_LINES:
                row.printed = now
                self.print_progress(f"{stage}: {progress_text(event)}")

    def line(self, stage: str, text: str) -> None:
        """A line the stage printed; warnings and notes are for the user, the rest is for the log."""
        self.logger.info("%s: %s", stage, text)
        kind, colon, sentence = text.partition(": ")
        if colon and kind in ("Warning", "Note"):
            self.note(f"{stage}: {sentence}")

    def end(self, stage: str, outcome: StageOutcome) -> None:
        with self._lock:
            row = self.rows[stage]
            row.state = "ran" if outcome is StageOutcome.RAN else "cached"
            row.seconds = time.monotonic() - row.began if row.began else 0.0
            if self.spans is not None:
                self.spans.end(stage, row.state)
            done = f"done in {row.seconds:.1f} s" if row.began else "done elsewhere"
            self.print_progress(f"{stage}: {done if outcome is StageOutcome.RAN else 'unchanged'}")

    def close(self, stage: str, state: Literal["failed", "skipped"]) -> None:
        """A stage did not run to its end."""
        with self._lock:
            self.rows[stage].state = state
            if self.spans is not None:
                self.spans.end(stage, state)
            self.print_progress(f"{stage}: {state}")

    def progress(self) -> tuple[float, str]:
        """The fraction of the stages that is done, and what is running, in words."""
        with self._lock:
            ended = sum(row.state in ("ran", "cached", "failed", "skipped") for row in self.rows.values())
            running = {name: row.event for name, row in self.rows.items() if row.state in ("checking", "running")}
            parts = sum(event["done"] / event["total"] for event in running.values() if event.get("total"))
        words = [f"{name}: {progress_text(event)}" if event else name for name, event in running.items()]
        words += [self.elsewhere] * bool(self.elsewhere)
        return (ended + parts) / len(self.rows), "; ".join(words) or ("starting" if not ended else "done")

    def note(self, text: str) -> None:
        """Print a sentence for the user."""
        # A terminal that went away is no reason to stop training.
        with suppress(OSError):
            self._say(text)

    def print_progress(self, text: str) -> None:
        """Print a line of a stage's progress."""
        self.note(text)


class LiveDisplay(Display):
    """Draws the stages as a list that is redrawn in place.

    Args:
        console: the terminal.
        logger: receives everything the stages print.
        stages: the stages of the run.
    """

    def __init__(
        self,
        console: Console,
        logger: "logging.Logger | logging.LoggerAdapter[Any]",
        stages: Sequence[str] = STEPS,
    ) -> None:
        super().__init__(lambda text: console.print(Text(text, style="yellow")), logger, stages)
        self._spinner = Spinner("dots")
        self._start = Spinner("dots", Text("starting", style=_DIM))
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> "LiveDisplay":
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def print_progress(self, text: str) -> None:
        """Print nothing: the live list shows it."""

    def _draw(self) -> RenderableType:
        with self._lock:
            table = Table.grid(padding=(0, 1))
            for width in _WIDTHS:
                table.add_column(min_width=width)
            for name, row in self.rows.items():
                table.add_row(*self._row(name, row))
            if all(row.state == "waiting" for row in self.rows.values()):
                return Group(table, self._start)
            return table

    def _row(self, name: str, row: Row) -> tuple[RenderableType, ...]:
        accuracy = Text(accuracy_text(row), style="green")
        match row.state:
            case "waiting":
                return Text(" "), Text(name, style=_DIM), "", Text("waiting", style=_DIM), ""
            case "checking" | "running" if not row.event:
                word = "starting" if row.state == "running" else "checking for changes"
                return self._spinner, Text(name, style="bold"), "", Text(word, style=_DIM), accuracy
            case "checking" | "running":
                bar = ProgressBar(total=row.event["total"], completed=row.event["done"], width=_BAR_WIDTH)
                return self._spinner, Text(name, style="bold"), bar, Text(progress_text(row.event, False)), accuracy
            case "ran":
                return Text.from_markup(_MARKS["ran"]), name, "", Text(f"{row.seconds:.1f} s"), accuracy
            case "cached":
                return Text.from_markup(_MARKS["cached"]), name, "", Text("unchanged", style=_DIM), ""
            case state:
                return Text.from_markup(_MARKS[state]), name, "", Text(state), ""


class _Console(Console):
    """Shows control characters of names and reasons instead of sending them to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else "\n".join(map(printable, text.split("\n"))), style, control)


def console() -> Console:
    """The console for a command's output: as wide as the terminal, or 120 columns where there is none."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else _LOG_WIDTH)


def progress_text(event: dict[str, Any], with_accuracy: bool = True) -> str:
    """``fine-tuning 1,200/6,000 images, 830 images/s, 6 s left``."""
    done, total, rate, unit = event["done"], event["total"], event["rate"], event["unit"]
    parts = [f"{event['label']} {done:,}/{total:,} {unit}"]
    if rate > 0:
        parts.append(f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s")
    if rate > 0 and done < total:
        parts.append(f"{duration((total - done) / rate)} left")
    for name, value in event.get("facts", {}).items():
        if name != "val_accuracy" or with_accuracy:
            parts.append(f"{fact_name(name)} {value:.4g}")
    return ", ".join(parts)


def accuracy_text(row: Row) -> str:
    """The validation accuracy and its course: ``validation accuracy 0.812 ▂▄▆▇``."""
    if not row.accuracy:
        return ""
    recent = row.accuracy[-_SPARK_WIDTH:]
    low, high = min(row.accuracy), max(row.accuracy)
    span = (high - low) or 1.0
    sparks = "".join(_SPARKS[int((value - low) / span * (len(_SPARKS) - 1))] for value in recent)
    return f"{fact_name('val_accuracy')} {row.accuracy[-1]:.3f} {sparks}"


def fact_name(name: str) -> str:
    """A fact's name for people."""
    return name.replace("_", " ").replace("val ", "validation ")


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


_current: ContextVar[Display | None] = ContextVar("display", default=None)


@contextmanager
def show_on(display: Display) -> Iterator[Display]:
    """Let a flow called in this block report to ``display``."""
    token = _current.set(display)
    try:
        yield display
    finally:
        _current.reset(token)


def current_display() -> Display | None:
    """The display of the flow's caller, if any."""
    return _current.get()
