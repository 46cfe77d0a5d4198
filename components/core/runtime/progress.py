"""The progress of a stage for people: a bar with images/s and time left.

Under ``reflux run`` a stage prints its progress as JSON text sequences (RFC 7464) on stdout, which the flow turns
into one display; run by hand on a terminal it draws the bar itself.
"""

import json
import os
import sys
import time
from contextlib import closing

from tqdm import tqdm

from reflux.components.core.runtime import launch

RECORD = "\x1e"
EVENTS_VARIABLE = "REFLUX_EVENTS"
_SECONDS_BETWEEN_EVENTS = 0.25


class Bar:
    """Counts images (or steps) of one piece of work, and draws a bar or prints events."""

    def __init__(self, stage: str, label: str, total: int, unit: str, done: int = 0) -> None:
        self._stage, self._label, self._total, self._unit = stage, label, total, unit
        self._done = self._before = done
        self._facts: dict[str, float] = {}
        self._began = self._emitted = time.monotonic()
        seen, events = launch.rank() == 0, bool(os.environ.get(EVENTS_VARIABLE))
        self._piped, drawn = events and seen, seen and not events
        self._tqdm = tqdm(total=total, initial=done, desc=f"{stage}: {label}", unit=f" {unit}") if drawn else None
        self._emit()

    def advance(self, count: int, **facts: float) -> None:
        """Add ``count`` units; ``facts`` (such as val_accuracy) are shown next to the bar until replaced."""
        self._done += count
        self._facts |= facts
        if self._tqdm is not None:
            self._tqdm.update(count)
            if facts:
                self._tqdm.set_postfix(self._facts)
        elif facts or time.monotonic() - self._emitted > _SECONDS_BETWEEN_EVENTS:
            self._emit()

    @property
    def rate(self) -> float:
        """Units a second since the bar appeared."""
        return (self._done - self._before) / max(time.monotonic() - self._began, 1e-9)

    def close(self) -> None:
        if self._tqdm is not None:
            self._tqdm.close()
        self._emit()

    def _emit(self) -> None:
        if not self._piped:
            return
        self._emitted = time.monotonic()
        event = {"stage": self._stage, "label": self._label, "unit": self._unit, "done": self._done}
        event |= {"total": self._total, "rate": round(self.rate, 1), "facts": self._facts}
        try:
            sys.stdout.write(f"{RECORD}{json.dumps(event)}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader is gone, perhaps killed: the stage is stopped, it did not fail.
            raise KeyboardInterrupt from None


def bar(stage: str, label: str, total: int, unit: str = "images", done: int = 0) -> closing[Bar]:
    """A progress bar that closes with its block; ``done`` of the total were done before it.

    Of several processes that work on one stage, the first alone shows its own.
    """
    return closing(Bar(stage, label, total, unit, done))
