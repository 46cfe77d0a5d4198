import os
import time

import pytest
import torch

from reflux.components.advice.plan import speed
from reflux.components.advice.plan.speed import seconds_a_view, seconds_an_image
from reflux.components.core.artifacts import read_json
from reflux.components.core.errors import UserError
from reflux.components.core.params.augment import StudentAugment

NETWORK = ("resnet8", 8, 8, 1, 2, 4)


@pytest.fixture(autouse=True)
def brief(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "_SECONDS", 0.02)


def test_a_network_is_measured_once():
    first = seconds_an_image(*NETWORK, True, "cpu", 1)
    assert 0 < first < 1
    assert seconds_an_image(*NETWORK, True, "cpu", 1) == first
    file = seconds_an_image.file(*NETWORK, True, "cpu", 1)
    assert read_json(file)["model"] == "resnet8"
    file.write_text("{")
    assert seconds_an_image(*NETWORK, True, "cpu", 1) != first, "a damaged file is measured again"


@pytest.mark.parametrize(
    "other",
    [("resnet14", 8, 8, 1, 2, 4, True, "cpu", 1), (*NETWORK, False, "cpu", 1), (*NETWORK, True, "cpu", 2)],
)
def test_it_is_kept_under_its_arguments(other):
    assert seconds_an_image.file(*other) != seconds_an_image.file(*NETWORK, True, "cpu", 1)
    assert seconds_an_image.file(*NETWORK, True, "cpu", threads=1) == seconds_an_image.file(*NETWORK, True, "cpu", 1)


def test_all_pipelines_of_a_project_share_it(tmp_path, monkeypatch):
    for folder in (tmp_path / ".dvc", tmp_path / "pipelines/pets"):
        folder.mkdir(parents=True)
    in_root = seconds_an_image.file(*NETWORK, True, "cpu", 1).resolve()
    monkeypatch.chdir(tmp_path / "pipelines/pets")
    assert (
        seconds_an_image.file(*NETWORK, True, "cpu", 1).resolve()
        == in_root
        == tmp_path / ".reflux/speed" / in_root.name
    )


def test_it_is_kept_for_this_machine_and_these_packages(monkeypatch):
    here = seconds_an_image.file(*NETWORK, True, "cpu", 1)
    monkeypatch.setattr(speed, "machine", lambda: "another")
    there = seconds_an_image.file(*NETWORK, True, "cpu", 1)
    monkeypatch.setattr(speed.installed, "builds", lambda _stage: {"torch": "0.1"})
    assert len({here, there, seconds_an_image.file(*NETWORK, True, "cpu", 1)}) == 3


def test_what_a_busy_machine_measured_is_measured_again_once_it_is_quiet(monkeypatch):
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (100.0, 0, 0))
    busy = seconds_an_image(*NETWORK, True, "cpu", 1)
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (0.1, 0, 0))
    assert seconds_an_image.kept(*NETWORK, True, "cpu", 1) == busy, "not at once"
    file = seconds_an_image.file(*NETWORK, True, "cpu", 1)
    os.utime(file, (0, 0))
    assert seconds_an_image.kept(*NETWORK, True, "cpu", 1) is None
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (99.0, 0, 0))
    assert seconds_an_image.kept(*NETWORK, True, "cpu", 1) == busy


def test_measuring_leaves_threads_and_random_numbers_as_they_are():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    seconds_an_image(*NETWORK, True, "cpu", threads + 1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_what_keeps_it_company_computes_until_it_is_measured():
    steps: list[int] = []

    def step(count: int) -> None:
        steps.append(count)
        time.sleep(0.001)

    with speed._repeated(step, 4):
        while len(steps) < 3:
            time.sleep(0.001)
    taken = len(steps)
    time.sleep(0.02)
    assert steps == [4] * taken


def test_in_company_is_another_measurement():
    alone, together = ((*NETWORK, True, "cpu", 1, "auto", False, in_company) for in_company in (False, True))
    assert seconds_an_image(*together) > 0
    assert seconds_an_image.file(*alone) != seconds_an_image.file(*together)


def test_a_larger_network_takes_longer():
    assert seconds_an_image("resnet56", 16, 16, 1, 2, 16, False, "cpu", 1) > seconds_an_image(
        "resnet8", 16, 16, 1, 2, 16, False, "cpu", 1
    )


def test_resizing_is_part_of_what_a_network_takes():
    small, large = (seconds_an_image("resnet8", 8, stored, 3, 2, 16, False, "cpu", 1) for stored in (8, 256))
    assert large > 2 * small


def test_an_unknown_network_is_one_sentence():
    with pytest.raises(UserError, match="No model is named resnet9"):
        seconds_an_image("resnet9", 8, 8, 1, 2, 4, True, "cpu", 1)


def test_views_are_measured_as_they_are_drawn():
    plain = StudentAugment().model_dump()
    assert seconds_a_view(32, 3, plain | {"crop_scale": 0.5}, "cpu", 1) > seconds_a_view(32, 3, plain, "cpu", 1) > 0
