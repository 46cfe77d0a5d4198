import re
from pathlib import Path

from reflux.flows.commands.servers import automations

FLOWS = Path(__file__).parents[5] / "flows"


def test_every_state_that_a_flow_ends_in_is_known_to_the_automations():
    source = "".join(path.read_text() for path in FLOWS.rglob("*.py"))
    names = set(re.findall(r'(?:Completed|Failed|Cancelled)\(name="(\w+)"', source))
    assert names >= {"Skipped"}
    assert names <= set(automations.ENDED)


def test_alerts_are_declared_only_where_someone_receives_them():
    assert [each.name for each in automations.declared([])] == ["reflux: lost", "reflux: stuck"]


def test_no_run_that_sends_heartbeats_is_crashed():
    """Events of a busy server come out of order: Running, and then Pending."""
    for each in automations.declared([]):
        assert "prefect.flow-run.heartbeat" in each.trigger.expect, each.name
