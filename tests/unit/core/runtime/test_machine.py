import os

from reflux.components.core.runtime.machine import machine, processor, usable_cores


def test_cores_are_counted_where_processes_have_no_affinity(monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()


def test_a_machine_with_other_cores_is_another_one(monkeypatch):
    here, more = machine.__wrapped__(), usable_cores() + 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(more))
    assert machine.__wrapped__() != here


def test_the_processor_has_a_name_everywhere(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Fast CPU 9000\n")
    assert processor(tmp_path / "cpuinfo") == "Fast CPU 9000"
    assert processor(tmp_path / "none")
