"""A search on the soft labels of a tiny dataset; only what is slow is marked so."""

import importlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState, create_trial

from reflux.components.advice.tune import study as studies
from reflux.components.advice.tune.__main__ import keep, main, prepared
from reflux.components.advice.tune.findings import completed, is_refused, repeats_begun, rows_of, table
from reflux.components.advice.tune.result import FIGURE, RESULT, TRIALS, read, to_repeat
from reflux.components.advice.tune.storage import (
    CHANGES,
    CONTINUES,
    DEAD_AFTER_S,
    FIGURES,
    REPEATS,
    SEED,
    open_study,
    storage_errors,
)
from reflux.components.advice.tune.study import begin, hopeless, repeat
from reflux.components.advice.tune.trial import Trial
from reflux.components.core.artifacts import read_json
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params, override_params
from reflux.components.core.runtime.journal import Journal
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import load, save
from tests.workspaces import PACKAGE, ROOT, training_workspace

OBJECTIVES = ["accuracy", "size_kb"]
REQUEST = {"ends": time.time() + 10_000, "objectives": OBJECTIVES, "workers": 1}
SPACE = """
    student.model=resnet8_tiny tune.space.network=resnet8_tiny tune.space.width=1 tune.space.image_size=12
    compress.ships=onnx tune.space.ships=onnx
    tune.space.steps=[10,20] evaluate.latency_runs=20 student.eval_every=5 registry.gates.latency_ms_p95.max=1000
"""


@pytest.fixture(scope="module")
def labeled(tmp_path_factory) -> Path:
    """A workspace up to the soft labels, with a space of a single network, whose files are measured; no test split."""
    folder = training_workspace(tmp_path_factory.mktemp("tune") / "labeled")
    params = override_params(SPACE.split(), folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("pretrain", "finetune", "label"):
            Path("artifacts", name).mkdir()
            importlib.import_module(f"reflux.components.stages.{name}.__main__").main(Stage(name, params))
        search(1)
        shutil.rmtree(".reflux/outbox")
        Path(".reflux/tune/study.db").unlink()
    shutil.rmtree(folder / "artifacts/ingest/shards/test")
    return folder


@pytest.fixture
def workspace(labeled, tmp_path, monkeypatch) -> Path:
    shutil.copytree(labeled, tmp_path / "one")
    monkeypatch.chdir(tmp_path / "one")
    return tmp_path / "one"


def search(trials: int, *assignments: str):
    """So many trials of the study in the working folder; it goes on if there is one."""
    params = override_params(list(assignments)) if assignments else load_params()
    Path(".reflux/tune").mkdir(parents=True, exist_ok=True)
    own = prepared(REQUEST, params, "sqlite:///.reflux/tune/study.db")
    begin(own, "tiny")
    for _ in range(trials):
        own.run()
    return own


def outcomes(own) -> list[tuple[dict, dict]]:
    trials = own.study.get_trials()
    unsteady = ("latency_ms_p95",)
    figures = [{k: v for k, v in t.user_attrs.get(FIGURES, {}).items() if k not in unsteady} for t in trials]
    return [(trial.user_attrs[CHANGES], each) for trial, each in zip(trials, figures, strict=True)]


def test_the_test_split_can_not_be_opened(workspace):
    """No trial asks for it, as it is gone here, and none could: the stage's reader refuses it."""
    own = search(2, "compress.ships=onnx-int8", "tune.space.ships=onnx-int8")
    assert len(completed(own.study)) == 2
    trial = Trial("t", own.params, {}, None, "", lambda *_: None)
    (workspace / "artifacts/ingest/shards/test").mkdir()
    for name in ("ingest/shards/test", "ingest/shards/../shards/test", "ingest/manifest.parquet"):
        with pytest.raises(UserError, match="distill must not read artifacts/ingest/"):
            trial.read(name)


def test_the_trials_of_a_seed_are_the_same_twice_and_do_not_depend_on_breaks(workspace, tmp_path, monkeypatch):
    whole = outcomes(search(4))
    assert len({json.dumps(changed) for changed, _ in whole}) == 4
    assert whole[0][0]["student.model"] == "resnet8_tiny"
    assert whole[0][0]["student.steps"] == 20, "the present student comes first"
    Path(".reflux/tune/study.db").unlink()
    search(1)
    search(1)
    assert outcomes(search(2)) == whole
    assert outcomes(search(2, "seed=0", "student.batch_size=12"))[0] != whole[0], "another study"


def test_the_present_student_comes_first_and_then_its_narrower_selves(workspace):
    queued = [trial.system_attrs["fixed_params"] for trial in search(0, "tune.space.width=[0.75,1]").study.get_trials()]
    assert [values["width"] for values in queued] == [1.0, 0.875, 0.75]
    assert {json.dumps(values | {"width": 1.0}) for values in queued} == {json.dumps(queued[0])}


def test_what_can_not_pass_is_not_trained_and_the_nearest_is_named(workspace, monkeypatch):
    monkeypatch.setattr(studies, "_REFUSED", 5)
    override_params(["registry.gates.size_kb.max=4"])
    with pytest.raises(UserError) as error:
        main(REQUEST)
    said = str(error.value)
    assert said.startswith(
        "No candidate of tune.space meets registry.gates.size_kb.max = 4: the nearest is resnet8_tiny as "
    )
    assert re.search(r" as onnx with 4\d\.\d+ KB; change the gate, or widen tune\.space\.$", said)
    assert not list(Path(".reflux/outbox").glob("*/files"))
    assert not RESULT.exists()


def test_what_a_gate_refused_is_trained_once_the_gate_is_loosened(workspace):
    refused = search(1, "registry.gates.size_kb.max=4")
    assert [is_refused(trial) for trial in refused.study.get_trials()] == [True]
    own = search(1, "registry.gates.size_kb.max=400")
    assert own.study.study_name == refused.study.study_name
    assert own.result().present == 1, "the present student, with which the others are compared"
    assert [trial.state.name for trial in search(0).study.get_trials()] == ["PRUNED", "COMPLETE"]


def test_too_little_time_after_a_gate_was_loosened_is_one_sentence(workspace):
    search(1, "registry.gates.size_kb.max=4")
    assert hopeless(search(0, "registry.gates.size_kb.max=400")) == (
        "--minutes is too short: no trial has ended; give several minutes."
    )


def test_what_was_found_is_kept_with_a_picture_and_runs_in_mlflow(workspace):
    own = search(1)
    journal = Journal("tiny", "tune", {"run_kind": "tune"})
    own.parent = journal.id
    repeat(own, rows_of(own.study)[0])
    result = own.result()
    keep(result, [*table(own.study), {"state": "=1+1"}], journal)
    journal.end("FINISHED")
    assert read() == result
    assert result.counts == {"trained": 1, "stopped": 0, "refused": 0, "repeated": 1}
    assert result.present == 0
    assert result.rows[0].repeats[0] == result.rows[0].figures, "no search chose the present student"
    assert result.rows[0].repeats[1]["ece"] != result.rows[0].figures["ece"], "another seed, another student"
    assert result.store == read_json(Path("artifacts/label/manifest.json"))["key"]
    assert FIGURE.is_file()
    assert [line.split(",")[1] for line in TRIALS.read_text().splitlines()] == [
        "state",
        "complete",
        "complete",
        "'=1+1",
    ]
    assert not any(Path(".reflux/tune/trials").iterdir())
    starts = [json.loads(file.read_text().splitlines()[0]) for file in Path(".reflux/outbox").glob("*/journal.jsonl")]
    children = [start for start in starts if start["parent"] == journal.id]
    assert [start["tags"]["run_kind"] for start in children] == ["tune trial"]
    assert "tune/best/accuracy" in (journal.folder / "journal.jsonl").read_text()


def test_a_repeat_that_another_worker_is_at_is_left_to_it(workspace):
    own = search(1)
    (row,) = rows_of(own.study)
    repeat(own, row)
    (once,) = rows_of(own.study)
    own.study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={REPEATS: 0, SEED: 2000}))
    assert repeats_begun(own.study) == [0]
    assert to_repeat(own.result(), repeats_begun(own.study)) == []
    repeat(own, once)
    seeds = [(trial.user_attrs.get(SEED), trial.state.name) for trial in own.study.trials[1:]]
    assert seeds == [(1000, "COMPLETE"), (2000, "RUNNING"), (3000, "COMPLETE")]
    assert len(rows_of(own.study)[0].repeats) == 3, "of the present student, the first one counts as well"


def test_a_repeat_goes_before_what_waits_and_the_next_call_takes_that_up(workspace):
    own = search(1)
    (row,) = rows_of(own.study)
    waiting = own.study.trials[0].params | {"steps": 20.0}
    own.study.enqueue_trial(waiting)
    repeat(own, row)
    assert [trial.state.name for trial in own.study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert own.study.trials[2].user_attrs[REPEATS] == 0
    search(1)
    taken_up = own.study.trials[3]
    assert (taken_up.params, taken_up.state.name) == (waiting, "COMPLETE")


@pytest.mark.long
def test_a_search_ends_in_its_time(workspace, capfd):
    began = time.monotonic()
    search(1)
    of_a_trial = time.monotonic() - began
    ends = time.time() + max(30, 15 * of_a_trial)
    main(REQUEST | {"ends": ends})
    assert time.time() < ends + max(6, of_a_trial)
    result = read()
    assert result.counts["trained"] == len(result.rows) >= 2
    assert result.counts["repeated"] >= 1
    assert to_repeat(result) == [], "what is chosen was trained with every seed"
    assert {"smallest", "best", "knee"} == set(result.choices)
    assert "Note: trial 0: resnet8_tiny at 12 px, onnx: " in capfd.readouterr().out


def test_too_little_time_is_said_with_what_is_enough(workspace):
    override_params(["student.steps=10000000", "tune.space.steps=10000000"])
    with pytest.raises(UserError, match=r"too short for one trial on this machine, which takes about [\d,]+ s: give"):
        main(REQUEST | {"ends": time.time() + 300})


def test_what_was_broken_off_is_taken_up_from_its_checkpoint(workspace, monkeypatch):
    own = search(1, "student.steps=60", "tune.space.steps=60")
    stopped_at = []

    def stop(self, step, accuracy):
        stopped_at.append(step)
        if step == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(studies._Watch, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            own.run()
    assert stopped_at == [5, 10, 15, 20, 25, 30]
    steps = []
    monkeypatch.setattr(studies._Watch, "__call__", lambda self, step, accuracy: steps.append(step))
    again = search(1)
    rows = table(again.study)
    assert [row["state"] for row in rows] == ["complete", "fail", "complete"]
    assert steps == [30, 35, 40, 45, 50, 55, 60], "from the checkpoint, whose accuracy had not been told to its end"
    changed = [trial.user_attrs[CHANGES] for trial in again.study.get_trials()]
    assert changed[1] == changed[2]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["distill.method=born-again"], "born-again trains several networks"),
        (["distill.teacher=live"], "it asks the teacher at every step"),
        (["tune.space.network=resnet8_tinny"], "No model is named resnet8_tinny"),
        (["student.weights=a.safetensors", "student.prune=0.5"], "student.prune makes one that has none: set it to 0"),
    ],
)
def test_params_that_can_not_be_searched_are_one_sentence(workspace, settings, sentence):
    override_params(settings)
    with pytest.raises(UserError, match=sentence):
        main(REQUEST)


def test_without_soft_labels_it_says_what_to_run(workspace):
    shutil.rmtree("artifacts/label")
    with pytest.raises(UserError, match=r"there are none yet: run `reflux run`\.$"):
        main(REQUEST)


def test_soft_labels_of_another_teacher_end_the_search(workspace):
    file = Path("artifacts/finetune/model.safetensors")
    teacher = load(file)
    torch.nn.init.zeros_(teacher.net.head.bias)
    save(teacher, file)
    with pytest.raises(UserError, match="holds the soft labels of another teacher"):
        main(REQUEST)


def test_a_storage_that_is_away_or_old_is_one_sentence(workspace, monkeypatch):
    monkeypatch.setenv("REFLUX_TUNE_STORAGE", "postgresql://u:secret@127.0.0.1:1/none")
    with pytest.raises(UserError, match=r"The storage of studies, postgresql://127\.0\.0\.1:1/none, can't be used"):
        main(REQUEST)
    monkeypatch.delenv("REFLUX_TUNE_STORAGE")
    search(0)
    with sqlite3.connect(".reflux/tune/study.db") as database:
        database.execute("update alembic_version set version_num = 'v0.9.0.a'")
        database.execute("update version_info set schema_version = 1")
    with pytest.raises(UserError, match="was made by another version of Optuna"):
        main(REQUEST)


def test_a_storage_without_its_driver_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    sentence = (
        r"^The storage of studies, postgresql://db/tune, needs the package psycopg2-binary: "
        r"`pip install psycopg2-binary`\.$"
    )
    with pytest.raises(UserError, match=sentence):
        open_study("postgresql://u:secret@db/tune", "tiny", OBJECTIVES)


def test_an_error_of_training_is_not_blamed_on_the_storage():
    with pytest.raises(RuntimeError, match="out of memory"), storage_errors("sqlite:///study.db"):
        raise RuntimeError("CUDA out of memory")


@pytest.mark.long
def test_several_workers_share_a_study(workspace, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / PACKAGE))
    main(REQUEST | {"ends": time.time() + 60, "workers": 2})
    starts = [json.loads(file.read_text().splitlines()[0]) for file in Path(".reflux/outbox").glob("*/journal.jsonl")]
    trials = [start for start in starts if start["tags"]["run_kind"] == "tune trial"]
    assert len({start["pid"] for start in trials}) == 2
    assert len({start["parent"] for start in trials}) == 1
    numbers = [row["trial"] for row in table(search(0).study)]
    assert numbers == list(range(len(numbers)))
    assert read().counts["trained"] >= 4
    seeds: dict[int, set[int]] = {}
    for trial in completed(search(0).study):
        if SEED in trial.user_attrs:
            seeds.setdefault(trial.user_attrs[REPEATS], set()).add(trial.user_attrs[SEED])
    assert seeds
    counted = {row.number: len(row.repeats) - (row.number == read().present) for row in read().rows}
    assert {number: len(tried) for number, tried in seeds.items()}.items() <= counted.items(), "each seed counts once"


@pytest.mark.long
def test_a_kill_loses_one_trial_at_most_and_a_signal_keeps_what_is_finished(workspace):
    override_params(["student.steps=300", "tune.space.steps=300"])
    command = [sys.executable, "-m", "reflux.components.advice.tune", json.dumps(REQUEST)]
    environment = os.environ | {"REFLUX_EVENTS": "1", "PYTHONPATH": str(ROOT / PACKAGE)}

    def until_trials(count: int) -> subprocess.Popen:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        ended = 0
        for line in process.stdout:
            ended += line.startswith("Note: trial")
            if ended == count:
                return process
        raise AssertionError("it has ended")

    killed = until_trials(2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(DEAD_AFTER_S + 5)
    stopped = until_trials(2)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(60) == 130
    own = search(0)
    states = [row["state"] for row in table(own.study)]
    assert states.count("complete") >= 4, "what was said to be done is kept"
    assert states.count("running") == 0
    lost = [trial.number for trial in own.study.get_trials() if trial.state is TrialState.FAIL]
    assert len(lost) <= 2, "at most one with each"
    assert {trial.user_attrs.get(CONTINUES) for trial in own.study.get_trials()} - {None} == set(lost)
    assert sum(is_refused(trial) for trial in own.study.get_trials()) == 0
    assert read().counts["trained"] >= 2
