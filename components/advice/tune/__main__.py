"""``python -m reflux.components.advice.tune REQUEST``: searches students on stored soft labels, by validation images.

REQUEST is JSON: ``ends`` (when, in seconds since 1970), ``objectives``, ``workers`` and, of a further worker,
``parent`` (the journal of the study's run). The study is in a file of this checkout, or in the database whose URL is in
REFLUX_TUNE_STORAGE: not in REQUEST, as it may hold a password. It ends with 0 and leaves the result with its picture in
``.reflux/tune``, with 2 and one sentence, or with 130 when it was stopped.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import FrameType
from typing import Any, NoReturn

from reflux.components.advice.tune.figure import draw
from reflux.components.advice.tune.findings import table
from reflux.components.advice.tune.result import FIGURE, HOME, RESULT, TRIALS, Result, write
from reflux.components.advice.tune.space import decides, distributions
from reflux.components.advice.tune.storage import STORAGE_VARIABLE, open_study, storage_errors, study_name
from reflux.components.advice.tune.study import Search, begin, hopeless
from reflux.components.core.artifacts import ARTIFACTS, as_cell, atomic, read_json
from reflux.components.core.data.shards import open_shard, read_dataset
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.distill import targets_from
from reflux.components.core.params.file import load_params
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.device import THREADS_VARIABLE, resolve_device
from reflux.components.core.runtime.journal import Journal, Status
from reflux.components.core.runtime.lineage import code_sha256
from reflux.components.core.runtime.machine import usable_cores
from reflux.components.core.runtime.stage import EXIT_INTERRUPTED, Stage
from reflux.components.registry.policy.decision import Policy

_DATABASE = "study.db"
_JOURNAL = "journal"
_READS = (
    *("ingest/images.json", "ingest/shards/train", "ingest/shards/unlabeled", "ingest/shards/val"),
    *("finetune/model.safetensors", "label/store", "label/manifest.json"),
)


def main(request: Mapping[str, Any]) -> None:
    """Search, and keep what was found.

    Raises:
        UserError: there are no soft labels, the params or the storage are wrong, no candidate can pass, or the time is
            too short for one.
    """
    deadline = time.monotonic() + request["ends"] - time.time()
    params = load_params()
    check(params)
    share = max(1, usable_cores() // request["workers"])
    if request["workers"] > 1:
        os.environ[THREADS_VARIABLE] = str(share)
    HOME.mkdir(parents=True, exist_ok=True)
    url = os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{HOME / _DATABASE}"
    with storage_errors(url):
        search = prepared(request, params, url)
        if request.get("parent"):
            search.parent = request["parent"]
            search.until(deadline)
            return
        begin(search, params.project.name)
        journal = Journal(
            params.project.name,
            f"tune-{datetime.now(UTC):%Y%m%d-%H%M%S}",
            {"run_kind": "tune"},
            continues=search.study.user_attrs.get(_JOURNAL),
        )
        search.study.set_user_attr(_JOURNAL, journal.run_key)
        search.parent = journal.id
        status: Status = "KILLED"
        search.say(f"{len(search.study.get_trials(deepcopy=False))} trials so far in {search.study.study_name}")
        helpers = [_helper(request, journal.id) for _ in range(request["workers"] - 1)]
        try:
            search.until(deadline)
            status = "FINISHED"
        except UserError:
            status = "FAILED"
            raise
        finally:
            for helper in helpers:
                if status != "FINISHED":
                    helper.terminate()
                helper.wait()
            result = search.result()
            if result.rows:
                keep(result, table(search.study), journal)
            journal.end(status)
    if not result.rows:
        raise UserError(hopeless(search))


def check(params: Params) -> None:
    """Look for soft labels, and for a method that learns from them alone.

    Raises:
        UserError: there are none, or the method wants more.
    """
    manifest = ARTIFACTS / "label" / "manifest.json"
    schedule = params.distill.schedule
    if schedule is not None or targets_from(params.distill) != "store":
        why = f"{schedule.name} trains several networks" if schedule else "it asks the teacher at every step"
        raise UserError(
            f"reflux tune trains students on stored soft labels, and distill.method can't be searched so ({why}): set "
            "it to losses of logits, such as kd, and distill.teacher to auto, then `reflux run`."
        )
    if "features" in params.phases:
        raise UserError(
            "reflux tune trains students on stored soft labels, and student.weights = distilled-features asks the "
            "teacher for its features: set it to random, then `reflux run`."
        )
    if params.student.prune:
        raise UserError(
            "reflux tune searches networks by their names, and student.prune makes one that has none: set it to 0, "
            "then `reflux run`."
        )
    if not manifest.is_file() or not read_json(manifest).get("shards"):
        raise UserError(
            "reflux tune trains students on the teacher's stored soft labels, and there are none yet: run `reflux run`."
        )


def prepared(request: Mapping[str, Any], params: Params, url: str) -> Search:
    """Open the study of the present data, soft labels, params and code.

    Raises:
        UserError: something of it is missing or wrong.
    """
    reader = Stage("distill", params)
    paths = {name: reader.read(name) for name in _READS}
    if params.student_is_pretrained:
        reader.read("pretrain/student")
    device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
    drawn, objectives = distributions(params), tuple(request["objectives"])
    code = code_sha256("advice.tune.trial", "stages.distill", "stages.compress")
    facts = [decides(params, drawn), objectives, code, reader.inputs(), reader.environment]
    study, storage = open_study(url, study_name(params.project.name, facts), objectives)
    return Search(
        study=study,
        storage=storage,
        params=params,
        dataset=read_dataset(paths["ingest/images.json"]),
        val=open_shard(paths["ingest/shards/val"], params.run.workers),
        gates=Policy.of(params.registry).gates,
        objectives=objectives,
        drawn=drawn,
        device=device,
        parent="",
        store=read_json(paths["label/manifest.json"])["key"],
        say=lambda text: print(f"Note: {text}", flush=True),  # noqa: T201 - what the command shows
    )


def keep(result: Result, trials: list[dict[str, Any]], journal: Journal) -> None:
    """Write the result, its picture and the table of all trials, and log them."""
    draw(result, FIGURE)
    write(result)
    columns = dict.fromkeys(name for trial in trials for name in trial)
    with atomic(TRIALS) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows({name: as_cell(value) for name, value in trial.items()} for trial in trials)
    for file_of_study in (RESULT, FIGURE, TRIALS):
        journal.artifact(file_of_study)
    journal.image("tune/front", FIGURE)
    figures = {f"tune/{name}": float(count) for name, count in result.counts.items()}
    figures |= {f"tune/importance/{knob}": share for knob, share in result.importance.items()}
    for choice, number in result.choices.items():
        row = next(row for row in result.rows if row.number == number)
        figures |= {f"tune/{choice}/{name}": value for name, value in row.expected.items()}
    if result.luck is not None:
        figures["tune/luck"] = result.luck
    journal.metrics(figures)


def _helper(request: Mapping[str, Any], parent: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "reflux.components.advice.tune", json.dumps({**request, "parent": parent})],
        stdin=subprocess.DEVNULL,
    )


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main(json.loads(sys.argv[1]))
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
