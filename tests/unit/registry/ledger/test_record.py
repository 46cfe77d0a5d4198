from types import SimpleNamespace

import pytest

from reflux.components.core.params.file import load_params
from reflux.components.core.params.registry import Registry
from reflux.components.registry.ledger import ledger, record
from reflux.components.registry.ledger.record import Grounds, describe_effect, unchanged_record
from reflux.components.registry.policy.decision import Policy

POLICY = Policy.of(Registry(model_name="clothes"))
GROUNDS = Grounds(POLICY, resamples=200, seed=0)
TAGS = {"lineage.key": "a" * 64}


def test_the_params_state_the_grounds():
    params = load_params()
    grounds = Grounds.of(params)
    assert grounds.policy == Policy.of(params.registry)
    assert (grounds.resamples, grounds.seed) == (params.evaluate.bootstrap, params.seed)
    assert grounds.approval == params.registry.approval


def test_the_key_changes_with_everything_that_a_decision_rests_on():
    keys = [
        GROUNDS.key(TAGS, "split"),
        Grounds(POLICY, 201, 0).key(TAGS, "split"),
        Grounds(POLICY, 200, 1).key(TAGS, "split"),
        Grounds(POLICY, 200, 0, "human").key(TAGS, "split"),
        Grounds(Policy.of(Registry(model_name="clothes", gates={"ece": {"max": 1}})), 200, 0).key(TAGS, "split"),
        GROUNDS.key(TAGS, "another split"),
        GROUNDS.key({"lineage.key": "b" * 64}, "split"),
    ]
    assert len(set(keys)) == len(keys)
    assert GROUNDS.key(TAGS | {"gate.status": "REJECTED"}, "split") == keys[0]


@pytest.mark.parametrize(
    ("outcome", "champion", "unchanged"),
    [
        (ledger.REJECTED, 1, True),  # the champion that it was compared with
        (ledger.REJECTED, 3, False),
        (ledger.PROMOTED, 2, True),  # the version itself is the champion now
        (ledger.PROMOTED, 1, False),
    ],
)
def test_a_decision_stands_while_its_grounds_and_the_champion_are_the_same(monkeypatch, outcome, champion, unchanged):
    kept = {"outcome": outcome, "compared_with": 1}
    monkeypatch.setattr(record.proof, "decided", lambda *_: kept)
    version = SimpleNamespace(version="2", tags={"gate.key": "key"})
    assert unchanged_record(None, "clothes", version, "key", champion) == (kept if unchanged else None)
    assert unchanged_record(None, "clothes", version, "another key", champion) is None


@pytest.mark.parametrize(
    ("outcome", "champion", "sentence"),
    [
        (ledger.PROMOTED, None, "Promoted at noon."),
        (ledger.PROMOTED, 1, "Promoted at noon, over version 1."),
        (ledger.REJECTED, None, "There is no champion yet."),
        (ledger.REJECTED, 1, "The champion stays version 1."),
        (ledger.UNCHANGED, 2, "It is the champion already."),
        (ledger.AWAITING, 1, "It awaits `reflux approve 2 --reason …`. The champion stays version 1."),
    ],
)
def test_the_effect_of_a_decision_is_one_sentence(outcome, champion, sentence):
    assert describe_effect(outcome, 2, champion, "noon") == sentence
