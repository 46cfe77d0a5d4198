"""Flow runs in Prefect that ended long ago, found and deleted through its client."""

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

_PAGE = 200  # the most that Prefect returns at once
_SECONDS_FOR_LOGS = 30.0


def unused(project: str, own: Collection[str] | None, kept: Collection[str], before: datetime) -> list[UUID]:
    """Find the flow runs of a project that ended before a time, and that must not stay.

    Args:
        project: its name, with which the names of its flow runs begin once they have a result.
        own: ids of further ones, as a run that failed has a name by chance; None where all of the server's are.
        kept: ids of those that stay.
        before: when they must have ended.
    """
    with get_client(sync_client=True) as client:
        runs = _ended(client, before)
    ours = [run for run in runs if own is None or str(run.id) in own or run.name.startswith(f"{project} ")]
    return [run.id for run in ours if str(run.id) not in kept]


def delete(runs: Sequence[UUID]) -> None:
    """Delete flow runs with their task runs and logs.

    The server deletes logs later, one run after the other, and forgets to when it is stopped: they are awaited.
    """
    with get_client(sync_client=True) as client:
        for run in runs:
            with suppress(ObjectNotFound):
                client.delete_flow_run(run)
        deadline = time.monotonic() + _SECONDS_FOR_LOGS
        for begin in range(0, len(runs), _PAGE):
            logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=list(runs[begin : begin + _PAGE])))
            while client.read_logs(logs, limit=1) and time.monotonic() < deadline:
                time.sleep(0.1)


def _ended(client: SyncPrefectClient, before: datetime) -> list[FlowRun]:
    final = FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES)))
    ended = FlowRunFilter(state=final, end_time=FlowRunFilterEndTime(before_=before))
    runs: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(
            flow_run_filter=ended, sort=FlowRunSort.END_TIME_DESC, limit=_PAGE, offset=len(runs)
        )
        runs += page
        if len(page) < _PAGE:
            return runs
