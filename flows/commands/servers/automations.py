"""Automations on Prefect's server: dead runs are marked as crashed, and people are alerted."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from pydantic import SecretStr

from reflux.components.core.errors import UserError
from reflux.components.registry.webhooks import SLACK_URL, is_safe

ALERT_URL = "REFLUX_ALERT_URL"
LOST_S = 590  # just under ten minutes; longer than an outage of the server that a run survives
# The tag of our deployments: a server may run others, whose runs are not ours to end.
TAG = "reflux"
# Names of states, Prefect's and ours, in which a run neither sends heartbeats nor waits for a worker.
ENDED = (
    *("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry"),
    *("Cached", "RolledBack", "Skipped"),
)


@dataclass(frozen=True)
class Receiver:
    """Where alerts go, kept on the server as a block, so that the address stays secret.

    Attributes:
        block: the block's name.
        variable: the environment variable that holds the address.
        payload: the body, a template that Prefect fills.
    """

    block: str
    variable: str
    payload: str


RECEIVERS = (
    Receiver(
        "reflux-slack",
        SLACK_URL,
        '{"text": {{ ("*" ~ deployment.name ~ ": " ~ flow_run.name ~ " is " ~ flow_run.state.name ~ "*\\n"'
        ' ~ (flow_run.state.message or "") ~ "\\n" ~ (flow_run|ui_url or ""))|tojson }}}',
    ),
    Receiver(
        "reflux-alerts",
        ALERT_URL,
        '{"deployment": {{ deployment.name|tojson }}, "run": {{ flow_run.name|tojson }}, "id": "{{ flow_run.id }}", '
        '"state": {{ flow_run.state.name|tojson }}, "message": {{ (flow_run.state.message or "")|tojson }}, '
        '"url": {{ (flow_run|ui_url or "")|tojson }}}',
    ),
)


def declared(receivers: Iterable[tuple[Receiver, UUID]]) -> list[Automation]:
    """The automations, whose alerts go to these receivers, each with its block's id."""
    calls: list[ActionTypes] = [
        CallWebhook(block_document_id=block, payload=receiver.payload) for receiver, block in receivers
    ]
    gone = _events(*ENDED)
    crashed = "No sign of life for ten minutes: the process or its machine is gone."
    stuck = "Ten minutes in Pending: the worker that took this run is gone."
    automations = [
        _watch("lost", crashed, _missing(_events("heartbeat"), _events("heartbeat") | gone), [_crash(crashed)]),
        _watch(
            "stuck",
            stuck,
            # Heartbeats, as a busy server may see the start of a run before it sees that a worker took it.
            _missing(
                _events("Pending", "Submitting"),
                _events("Running", "heartbeat", "Scheduled", "AwaitingConcurrencySlot", "Cancelling") | gone,
            ),
            [_crash(stuck)],
        ),
    ]
    if calls:
        at_once = EventTrigger(
            expect=_events("Failed", "TimedOut", "Crashed"),
            match=_OURS,
            match_related=_TAGGED,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        )
        late = _missing(_events("Late"), _events("Pending", "Running") | gone)
        automations += [
            _watch("failed", "A run failed, timed out or crashed.", at_once, calls),
            _watch("late", "A run is late by ten minutes: no worker takes it.", late, calls),
        ]
    return automations


def keep(automation: Automation) -> str:
    """Create an automation, or update the one of its name.

    Returns:
        ``made``, ``changed`` or ``unchanged``.
    """
    try:
        present = cast(Automation, Automation.read(name=automation.name))
    except ValueError:
        automation.create()
        return "made"
    if _content(present) == _content(automation):
        return "unchanged"
    automation.id = present.id
    automation.update()
    return "changed"


def keep_receiver(receiver: Receiver) -> tuple[UUID | None, str]:
    """Store the address of a receiver as a block on the server.

    Returns:
        The block's id, None when no address is configured; and ``made``, ``changed``, ``unchanged`` or ``not set``.

    Raises:
        UserError: the address would send alerts unencrypted over a network.
    """
    url = os.environ.get(receiver.variable)
    if not url:
        return None, "not set"
    if not is_safe(url):
        raise UserError(f"{receiver.variable} is not https:// (http:// is allowed for this machine only): change it.")
    try:
        present = cast(Webhook, Webhook.load(receiver.block))
        if present.url.get_secret_value() == url:
            return present._block_document_id, "unchanged"
        did = "changed"
    except ValueError:
        did = "made"
    return cast(UUID, Webhook(method="POST", url=SecretStr(url)).save(receiver.block, overwrite=True)), did


def _content(automation: Automation) -> dict[str, Any]:
    fields = {"description", "enabled", "trigger", "actions"}
    return automation.model_dump(include=fields)


def _watch(name: str, description: str, trigger: EventTrigger, actions: list[ActionTypes]) -> Automation:
    return Automation(name=f"reflux: {name}", description=description, trigger=trigger, actions=actions)


def _missing(after: set[str], expect: set[str]) -> EventTrigger:
    """A trigger that fires when none of ``expect`` follows one of ``after`` for the same run within ten minutes."""
    return EventTrigger(
        after=after,
        expect=expect,
        match=_OURS,
        match_related=_TAGGED,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=LOST_S),
    )


def _crash(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=StateType.CRASHED, message=message)


def _events(*states: str) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


_OURS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
_TAGGED = ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"})
