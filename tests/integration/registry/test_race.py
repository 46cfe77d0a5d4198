"""Processes that promote at the same moment, each in a folder of its own like a host of its own."""

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.registry import ledger, server
from components.registry.act import ChampionMoved, act
from components.registry.history import by_hand
from tests.integration.registry.faults import copies, forked, ready


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


def race(home, original, folder: Path, processes: int, rounds: int, tries: int) -> Race:
    """In each round every process promotes a version of its own over the champion that all of them see.

    Args:
        home: the registry.
        original: the version that all of these are copies of.
        folder: each process works in a folder of its own below it.
        processes: how many.
        rounds: how often.
        tries: how often a process names the new champion and tries again when it was overtaken.
    """
    name = f"{original.name}-race"
    copies(original, name, processes * rounds)
    context = multiprocessing.get_context("fork")
    start, done = context.Barrier(processes + 1), context.Barrier(processes + 1)

    def work(index: int) -> None:
        (folder / str(index)).mkdir(parents=True)
        os.chdir(folder / str(index))
        client = MlflowClient()
        for turn in range(rounds):
            champion = server.aliases(client, name).get("champion")
            start.wait(timeout=600)
            for _ in range(tries):
                try:
                    act(client, home.experiment, ready(name, turn * processes + index + 1, champion, f"host {index}"))
                    break
                except ChampionMoved:
                    champion = server.aliases(client, name)["champion"]
            done.wait(timeout=600)

    pids = [forked(lambda index=index: work(index)) for index in range(processes)]
    began = time.monotonic()
    seen = []
    for _ in range(rounds):
        start.wait(timeout=600)
        done.wait(timeout=600)
        seen.append(server.aliases(MlflowClient(), name))
    seconds = time.monotonic() - began
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * processes
    return Race(seen, ledger.entries(MlflowClient(), home.experiment, name)[::-1], seconds)


def check_one_winner(found: Race, processes: int, rounds: int) -> None:
    """One promotion a round, all others overtaken, and each champion the previous one's successor."""
    champion = None
    assert len(found.entries) == processes * rounds
    promoted = [entry for entry in found.entries if entry.outcome == "promoted"]
    assert len(promoted) == rounds
    assert {entry.outcome for entry in found.entries} <= {"promoted", "overtaken"}
    for turn, aliases in enumerate(found.aliases):
        winner = promoted[turn]
        assert winner.version in range(turn * processes + 1, (turn + 1) * processes + 1)
        assert winner.champion == champion
        assert aliases == {"champion": winner.version} | ({"previous": champion} if champion else {})
        champion = winner.version
    tried = sorted(entry.version for entry in found.entries)
    assert tried == list(range(1, processes * rounds + 1))


def check_a_chain(found: Race, processes: int, rounds: int) -> None:
    """Every version was champion once, each in place of the one before it: no update was lost."""
    moves = [entry for entry in found.entries if entry.outcome == "promoted"]
    assert sorted(entry.version for entry in moves) == list(range(1, processes * rounds + 1))
    assert [entry.champion for entry in moves] == [None, *(entry.version for entry in moves[:-1])]
    assert by_hand(moves[::-1], found.aliases[-1]) == []


def test_of_processes_that_promote_at_once_one_wins_a_round_and_the_ledger_has_all(home, original, tmp_path):
    check_one_winner(race(home, original, tmp_path, 4, 2, tries=1), 4, 2)


def test_processes_that_try_again_make_one_chain_of_champions(home, original, tmp_path):
    check_a_chain(race(home, original, tmp_path, 3, 1, tries=100), 3, 1)


@pytest.mark.long
def test_32_processes_embedded_for_100_rounds(home, original, tmp_path):
    found = race(home, original, tmp_path, 32, 100, tries=1)
    print(f"{found.seconds:.0f} s")
    check_one_winner(found, 32, 100)


@pytest.mark.long
def test_32_processes_embedded_in_one_chain(home, original, tmp_path):
    check_a_chain(race(home, original, tmp_path, 32, 1, tries=100), 32, 1)
