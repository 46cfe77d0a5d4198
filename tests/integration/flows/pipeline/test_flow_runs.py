"""Flow runs of a real Prefect server: those of the project that ended long ago go, with their logs."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound

from reflux.flows.pipeline.flow_runs import delete, unused

pytestmark = pytest.mark.slow


@flow(name="retrain")
def a_flow() -> None:
    """The flow that the runs are of."""


@pytest.fixture
def create(prefect_api) -> Callable[..., UUID]:
    """Creates a flow run in a state, with a line of its log."""

    def create(name: str, state: StateType = StateType.COMPLETED) -> UUID:
        with get_client(sync_client=True) as client:
            run = client.create_flow_run(a_flow, name=name, state=State(type=StateType.RUNNING))
            client.set_flow_run_state(run.id, State(type=state), force=True)
            line = LogCreate(name="a", level=20, message="b", timestamp=datetime.now(UTC), flow_run_id=run.id)
            client.create_logs([line])
        return run.id

    return create


def logs(run: UUID) -> int:
    with get_client(sync_client=True) as client:
        return len(client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))))


def test_runs_of_this_project_that_ended_before_go_and_no_others(create):
    done, kept = create("boots 2025-01-01 03:00 v1 promoted"), create("boots 2025-01-02 03:00 v2 promoted")
    failed, other = create("lucky-otter", StateType.FAILED), create("boots-in-red 2025-01-01 03:00 v1 promoted")
    create("boots 2025-01-03 03:00", StateType.RUNNING)
    time.sleep(0.1)
    before = datetime.now(UTC)
    create("boots 2025-01-04 03:00 v3 rejected")

    found = unused("boots", {str(failed)}, {str(kept)}, before)
    assert set(found) == {done, failed}
    assert {done, failed, kept, other} <= set(unused("boots", None, set(), before))

    assert logs(done) == 1
    delete([*found, UUID(int=1)])
    assert (logs(done), logs(failed), logs(kept)) == (0, 0, 1)
    assert unused("boots", {str(failed)}, {str(kept)}, before) == []
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(kept).name.startswith("boots")
        with pytest.raises(ObjectNotFound):
            client.read_flow_run(done)
