import os

from reflux.components.core.runtime.machine import machine, usable_cores


def test_cores_are_counted_where_processes_have_no_affinity(monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()


def test_a_machine_with_other_cores_is_another_one(monkeypatch):
    here, more = machine.__wrapped__(), usable_cores() + 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(more))
    assert machine.__wrapped__() != here
