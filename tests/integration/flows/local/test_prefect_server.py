"""The embedded Prefect server trusts its database only as far as it knows it."""

from importlib.metadata import version

import httpx
import pytest

from reflux.flows.local.prefect_server import PrefectServer


@pytest.mark.parametrize(
    ("has_database", "release"),
    [
        pytest.param(False, version("prefect"), id="deleted by hand"),
        pytest.param(True, "3.0.0", id="another release's"),
    ],
)
def test_a_database_that_lacks_tables_gets_them(tmp_path, has_database, release):
    if has_database:
        (tmp_path / "prefect.db").touch()
    (tmp_path / "migrated").write_text(release, encoding="utf-8")
    server = PrefectServer(tmp_path)
    try:
        server.wait()
        answer = httpx.post(f"{server.api}/flows/filter", json={}, timeout=20)
    finally:
        server.stop()
    assert (answer.status_code, answer.json()) == (200, [])
    assert (tmp_path / "migrated").read_text(encoding="utf-8") == version("prefect")


def test_a_run_writes_to_its_own_database_whichever_a_server_of_the_team_has(tmp_path, prefect_home, monkeypatch):
    home, teams = prefect_home(tmp_path / "prefect"), tmp_path / "team.db"
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{teams}")
    for _ in range(2):  # the second start finds the tables known
        server = PrefectServer(home)
        try:
            server.wait()
            flow = httpx.post(f"{server.api}/flows/", json={"name": "retrain"}, timeout=20)
        finally:
            server.stop()
        assert flow.status_code in (200, 201)
    assert not teams.exists()
