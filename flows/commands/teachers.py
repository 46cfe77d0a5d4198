"""``reflux teachers``: candidate teachers ranked on this dataset, before any of them is trained."""

import json
import sys
from collections.abc import Sequence

from reflux.components.advice.plan.choice import Choice, as_assignments
from reflux.components.advice.plan.teacher import TEACHER_BATCH, recipe
from reflux.components.advice.teachers.result import PICTURE, Ranking, cheapest_as_good, read
from reflux.components.core.artifacts import ARTIFACTS
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import PARAMS, load_params, override_params
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import installed, tracking
from reflux.flows.local.environment import embed_mlflow, only_run, reflux_command
from reflux.flows.repo.checkout import dvc, prepare_dvc
from reflux.flows.repo.dataset import fetch
from reflux.flows.repo.stages import own_sentence
from reflux.flows.report import teachers as report
from reflux.flows.report.display import console
from reflux.flows.report.followed import follow

_NAME = "teachers"


def rank(names: Sequence[str], sizes: Sequence[int], minutes: float, download: bool, take: str | None) -> None:
    """Rank candidate teachers by a linear probe, print them, and write the one to take to ``params.yaml``.

    Args:
        names: candidates in addition to those that are on this machine.
        sizes: image sizes in pixels; none for the usual ones.
        minutes: that it may take.
        download: fetch weights of ``names`` from timm's hub.
        take: the name of the teacher to write, at the image size with the shortest run that is not clearly worse.

    Raises:
        UserError: the dataset, a candidate or its weights are wrong. Nothing has changed.
    """
    params = load_params()
    embed_mlflow()
    with only_run():
        _refuse_unknown(names, take, params, download)
        prepare_dvc()
        fetch(params.datasets)
        _ingest(params)
        _compute({"names": names, "sizes": sizes, "minutes": minutes, "download": download, "take": take})
        ranking = read()
        _show(ranking)
        if take:
            print(_taken(ranking, take, params))
        if ranking.computed:
            report.log(ranking, params.project.name)
            tracking.deliver()


def _refuse_unknown(names: Sequence[str], take: str | None, params: Params, download: bool) -> None:
    """Look the candidates up before the images are ingested, which may take minutes.

    Raises:
        UserError: a name is unknown, or its weights are not here.
    """
    from reflux.components.advice.teachers.candidates import candidates, find

    known = candidates(names, params.pretrain.model, params.pretrain.weights, download)
    if take:
        find(take, known)


def _ingest(params: Params) -> None:
    """Bring the images up to date, as DVC sees it.

    Raises:
        UserError: they can't be ingested.
    """
    if not (ARTIFACTS / "ingest" / "run.json").is_file():
        print("Ingesting the images first …", flush=True)
    installed.record(params, ["ingest"])
    code, lines = dvc("repro", "--single-item", "ingest")
    if code != 0:
        raise UserError(f"The images can't be ingested: {own_sentence(lines) or 'DVC gives no reason.'}")


def _compute(request: dict[str, object]) -> None:
    """Rank in a process of its own, which has the environment of stages, and show its progress.

    Raises:
        UserError: it said so, or ended otherwise than it should.
    """
    code, lines = follow(_NAME, [sys.executable, "-m", "reflux.components.advice.teachers", json.dumps(request)])
    if code == EXIT_USER_ERROR:
        raise UserError(own_sentence(lines))
    if code != 0:
        raise UserError(f"The teachers could not be ranked ({own_sentence(lines)}).")


def _show(ranking: Ranking) -> None:
    screen = console()
    screen.print(report.table(ranking))
    screen.print()
    for sentence in report.sentences(ranking):
        screen.print(sentence, markup=False)
    screen.print(f"Accuracy against cost: {PICTURE}", soft_wrap=True)


def _taken(ranking: Ranking, name: str, params: Params) -> str:
    """Write a teacher to the params, and say so.

    Raises:
        UserError: it was left out of the ranking.
    """
    own = [each for each in ranking.rows if each.name == name]
    if not own:
        raise UserError(f"--take {name} can't be: it was left out above; give more --minutes or another --size.")
    row = cheapest_as_good(own)
    why = report.reason(ranking, row)
    chosen = [
        Choice("pretrain.model", row.model, why),
        Choice("pretrain.weights", row.weights, ""),
        Choice("finetune.image_size", row.image_size, f"pixels; {why}"),
    ]
    if params.pretrain.weights == "random":  # of a plan
        chosen += [*recipe(scratch=False), Choice("finetune.batch_size", TEACHER_BATCH, "a pretrained network's")]
    override_params(as_assignments(chosen), comments={each.param: each.reason for each in chosen if each.reason})
    written = f"{PARAMS} has {name} at {row.image_size} pixels now, with the reason next to it."
    return f"{written}\nNext: {reflux_command()} run"
