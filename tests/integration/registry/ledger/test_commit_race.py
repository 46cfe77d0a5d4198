"""Processes that promote at the same moment, each in a folder of its own like a host of its own."""

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from reflux.components.registry import client
from reflux.components.registry.history import by_hand
from reflux.components.registry.ledger import ledger
from reflux.components.registry.ledger.commit import ChampionMoved, commit
from tests.integration.registry.faults import copies, forked, ready
from tests.servers import has_postgres, mlflow_server, postgres

PROJECT = "clothes"
LONGEST_ROUND_S = 600


@dataclass(frozen=True)
class Race:
    """What a race came to.

    Attributes:
        aliases: after each round.
        entries: the ledger's, oldest first.
        seconds: all rounds together.
    """

    aliases: list[dict[str, int]]
    entries: list[ledger.Entry]
    seconds: float


def race(original, folder: Path, processes: int, rounds: int, tries: int) -> Race:
    """In each round every process promotes a version of its own over the champion that all of them see.

    Args:
        original: the version that all of these are copies of.
        folder: each process works in a folder of its own below it.
        processes: how many.
        rounds: how often.
        tries: how often a process names the new champion and tries again when it was overtaken.
    """
    name = f"{original.name}-race"
    copies(original, name, processes * rounds)
    context = multiprocessing.get_context("fork")
    start, done = (context.Barrier(processes + 1, timeout=LONGEST_ROUND_S) for _ in range(2))

    def work(index: int) -> None:
        (folder / str(index)).mkdir(parents=True)
        os.chdir(folder / str(index))
        mlflow = client.connect()
        for turn in range(rounds):
            champion = client.aliases(mlflow, name).get("champion")
            start.wait()
            for _ in range(tries):
                try:
                    commit(mlflow, PROJECT, ready(name, turn * processes + index + 1, champion, f"host {index}"))
                    break
                except ChampionMoved:
                    champion = client.aliases(mlflow, name)["champion"]
            done.wait()

    pids = [forked(lambda index=index: work(index)) for index in range(processes)]
    began = time.monotonic()
    seen = []
    for _ in range(rounds):
        start.wait()
        done.wait()
        seen.append(client.aliases(MlflowClient(), name))
    seconds = time.monotonic() - began
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * processes
    return Race(seen, ledger.entries(MlflowClient(), PROJECT, name)[::-1], seconds)


def check_one_winner(result: Race, processes: int, rounds: int) -> None:
    """One promotion a round, all others overtaken, and each champion the previous one's successor."""
    champion = None
    assert len(result.entries) == processes * rounds
    promoted = [entry for entry in result.entries if entry.outcome == "promoted"]
    assert len(promoted) == rounds
    assert {entry.outcome for entry in result.entries} <= {"promoted", "overtaken"}
    for turn, aliases in enumerate(result.aliases):
        winner = promoted[turn]
        assert winner.version in range(turn * processes + 1, (turn + 1) * processes + 1)
        assert winner.champion == champion
        assert aliases == {"champion": winner.version} | ({"previous": champion} if champion else {})
        champion = winner.version
    tried = sorted(entry.version for entry in result.entries)
    assert tried == list(range(1, processes * rounds + 1))


def check_a_chain(result: Race, processes: int, rounds: int) -> None:
    """Every version was champion once, each in place of the one before it: no update was lost."""
    moves = [entry for entry in result.entries if entry.outcome == "promoted"]
    assert sorted(entry.version for entry in moves) == list(range(1, processes * rounds + 1))
    assert [entry.champion for entry in moves] == [None, *(entry.version for entry in moves[:-1])]
    assert by_hand(moves[::-1], result.aliases[-1]) == []


def test_of_processes_that_promote_at_once_one_wins_a_round_and_the_ledger_has_all(original, tmp_path):
    check_one_winner(race(original, tmp_path, 4, 2, tries=1), 4, 2)


def test_processes_that_try_again_make_one_chain_of_champions(original, tmp_path):
    check_a_chain(race(original, tmp_path, 3, 1, tries=100), 3, 1)


@pytest.mark.long
def test_32_processes_embedded_for_25_rounds(original, tmp_path):
    result = race(original, tmp_path, 32, 25, tries=1)
    print(f"{result.seconds:.0f} s")
    check_one_winner(result, 32, 25)


@pytest.mark.long
def test_32_processes_embedded_in_one_chain(original, tmp_path):
    check_a_chain(race(original, tmp_path, 32, 1, tries=100), 32, 1)


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory):
    """A real MLflow server on a real Postgres; yields its address."""
    if not has_postgres():
        pytest.skip("needs Postgres (initdb, pg_ctl) and psycopg2")
    folder = tmp_path_factory.mktemp("server")
    # As infra/settings.env has it for every shared server.
    pool = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "20", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "20"}
    with postgres() as database, mlflow_server(folder, database, **pool) as running:
        yield running.uri


@pytest.fixture
def remote(on_postgres, monkeypatch, request) -> SimpleNamespace:
    """A version that has no files, in that server's registry: a race reads none."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", on_postgres)
    return SimpleNamespace(
        name=request.node.name.replace("[", "-").rstrip("]"), source="s3://none/none", run_id=None, tags={}
    )


@pytest.mark.long
@pytest.mark.parametrize(("processes", "rounds"), [(4, 2), (32, 25)])
def test_processes_on_a_server_with_postgres(remote, tmp_path, processes, rounds):
    result = race(remote, tmp_path, processes, rounds, tries=1)
    print(f"{result.seconds:.0f} s")
    check_one_winner(result, processes, rounds)


@pytest.mark.long
@pytest.mark.parametrize("processes", [3, 32])
def test_processes_on_a_server_with_postgres_in_one_chain(remote, tmp_path, processes):
    check_a_chain(race(remote, tmp_path, processes, 1, tries=100), processes, 1)
