import json
from pathlib import Path

import pytest

from reflux.components.registry.versions import smoke
from reflux.components.registry.versions.files import VersionFiles


@pytest.mark.parametrize("limit", [0.25, None])
def test_the_process_gets_the_gate_on_latency_and_the_reason_states_it(tmp_path: Path, monkeypatch, limit):
    requests = []

    def run(command, *_):
        requests.append(json.loads(command[-1]))
        Path(requests[0]["report"]).write_text('{"at": "timing"}\n{"images": 12, "p95_ms": 0.2, "network": "online"}\n')
        return 0

    monkeypatch.setattr(smoke, "_run", run)
    reason = smoke.check(VersionFiles(1, tmp_path, "0" * 64, {}), "1" * 64, limit)
    assert [request["latency_ms_p95_max"] for request in requests] == [limit]
    assert (reason.passed, reason.limit, reason.value) == (True, limit, 0.2)
