import pytest

from reflux.flows.commands.servers.doctor_servers import _ahead, _versions, dvc, is_loopback


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://127.0.0.1:5000", True),
        ("http://[::1]:5000", True),
        ("http://localhost:5000", True),
        ("http://0.0.0.0:5000", False),
        ("https://mlflow.example.org", False),
    ],
)
def test_only_a_loopback_address_is_reachable_from_this_machine_only(address, local):
    assert is_loopback(address) is local


def test_a_clock_is_off_only_by_what_whole_seconds_and_the_way_do_not_explain():
    date, at = "Thu, 01 Jan 1970 00:01:40 GMT", 100.0
    assert _ahead(date, at - 0.2, at + 0.9) == 0
    assert _ahead(date, at - 8, at - 7) == 7
    assert _ahead(date, at + 4, at + 5) == -3
    assert _ahead(None, at, at) is None


def test_another_minor_version_is_to_be_fixed(monkeypatch):
    monkeypatch.setattr("reflux.flows.commands.servers.doctor_servers.version", lambda _: "3.17.1")
    assert _versions("mlflow", "3.17.4") == ""
    assert _versions("mlflow", "3.16.0") == "this is mlflow 3.17.1: install mlflow==3.17.1 there, or 3.16.0 here"


def test_damaged_settings_of_dvc_are_a_finding(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n<<<<<<< HEAD\n")
    (finding,) = dvc()
    assert (finding.what, finding.observed) == ("DVC", "refused")
    assert finding.fix.startswith("DVC refuses this project (config file error: Invalid line")
