"""``reflux plan``: what the next run will compute and restore, why, and how long it will take."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reflux.components.advice.plan.times import experience_of, measurements, run_seconds, stage_seconds
from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.contract import STAGES
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import PARAMS, check_params, overridden
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.lineage import LOCK
from reflux.components.core.runtime.machine import machine
from reflux.flows.local.environment import SOFT_LABELS, reflux_command
from reflux.flows.pipeline.speeds import measure
from reflux.flows.repo import remote
from reflux.flows.repo.changes import Change, Foreseen, foresee
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.images import counts_of_others
from reflux.flows.report.display import console, duration

_RESTORED_S, _REGISTERED_BEFORE_S = 2.0, 4.0
# Soft labels of the same teacher are stored image by image and view by view.
_REUSED_IN_SPITE_OF = ("ingest changes", "student.steps: ", "student.batch_size: ", "label.views: ")
_LABELED = ("train", "unlabeled", "")
_STYLES = {"computed": "bold", "restored": "cyan", "unchanged": "bright_black"}


def plan(assignments: list[str]) -> None:
    """Print what the next run will do with each stage, why, and how long it takes; no stage runs and nothing changes.

    Args:
        assignments: of the params, as for ``reflux run``.

    Raises:
        UserError: a param, the dataset or a network is wrong, or DVC's remote does not answer.
    """
    text, params = overridden(assignments)
    prepare_dvc()
    foreseen = foresee(text, params, remote.name())
    changes, seconds = foreseen.changes, {}
    if any(change.fate == "computed" for change in changes.values()):
        seconds = _seconds(params, foreseen.counts, foreseen, assignments)
        share = _share_to_label(params, foreseen)
        if share < 1:
            least = _seconds(params, {}, foreseen, assignments)["label"]
            seconds["label"] = least + share * (seconds["label"] - least)
    _show(changes, seconds)


def _seconds(params: Params, counts: Mapping[str, int], foreseen: Foreseen, assignments: list[str]) -> dict[str, float]:
    """Seconds of every step, from measured speeds and earlier runs on this machine.

    Raises:
        UserError: a network is unknown or can't take such images, or the device is not there.
    """
    shared = all(foreseen.changes[name].fate == "computed" for name in ("distill", "control"))
    speeds = measure(assignments, foreseen.classes, shared)
    return stage_seconds(params, counts, speeds, _experience(params))


def _share_to_label(params: Params, foreseen: Foreseen) -> float:
    """The share of the soft labels that the teacher must compute, because they are not among the stored ones."""
    before, why = _params_before(), foreseen.changes["label"].why
    images, new = (sum(each.get(split, 0) for split in _LABELED) for each in (foreseen.counts, foreseen.added))
    if (
        before is None
        or not images
        or not SOFT_LABELS.is_dir()
        or not all(reason.startswith(_REUSED_IN_SPITE_OF) for reason in why)
    ):
        return 1.0
    views = params.views_of_each(images)
    stored = min(views, before.views_of_each(max(1, images - new))) * max(0, images - new)
    return 1.0 - stored / (views * images)


def _experience(params: Params) -> dict[str, float]:
    """How much longer than foreseen the stages took whose results are here; those of this machine and data alone."""
    facts = {name: ARTIFACTS / name / "run.json" for name in STAGES}
    runs = {name: read_json(file) for name, file in facts.items() if file.is_file()}
    took = {name: run["wall_s"] for name, run in runs.items() if run.get("machine") == machine()}
    dataset, before = ARTIFACTS / "ingest" / "dataset.json", _params_before()
    if not took or before is None or not dataset.is_file() or before.ingest.source != params.ingest.source:
        return {}
    ingested = read_json(dataset)
    asked = measurements(before, len(ingested["classes"]))
    speeds = {name: each.kept() for name, each in asked.items()}
    known = {name: speed for name, speed in speeds.items() if speed is not None}
    counts = ingested["counts"] | counts_of_others(before)
    return experience_of(before, counts, known, took) if len(known) == len(speeds) else {}


def _params_before() -> Params | None:
    """The params that the results here were computed with, as ``dvc.lock`` has them; None if that can't be read."""
    try:
        document = YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))
        for stage in YAML(typ="safe").load(LOCK.read_text(encoding="utf-8"))["stages"].values():
            for key, value in stage.get("params", {}).get(str(PARAMS), {}).items():
                section, _, name = key.partition(".")
                if name:
                    document.setdefault(section, {})[name] = value
                else:
                    document[section] = value
        return check_params(document, str(LOCK))
    except (FileNotFoundError, YAMLError, KeyError, TypeError, AttributeError, UserError):
        return None


def _show(changes: Mapping[str, Change], seconds: Mapping[str, float]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("stage", "", "why"):
        table.add_column(column)
    table.add_column("about", justify="right")
    taken = {}
    for name, change in changes.items():
        if change.fate != "unchanged":
            taken[name] = seconds[name] if change.fate == "computed" else _RESTORED_S
        about = duration(taken[name]) if name in taken else ""
        style = _STYLES[change.fate]
        table.add_row(name, Text(change.fate, style=style), Text("; ".join(change.why)), about)
    screen = console()
    screen.print(table)
    screen.print()
    ends = {name: seconds[name] for name in ("register", "promote")} if seconds else {"promote": _REGISTERED_BEFORE_S}
    whole = duration(run_seconds(taken | ends))
    if not taken:
        screen.print(f"Nothing has changed: `{reflux_command()} run` looks at it for {whole}.", soft_wrap=True)
        return
    both = all(changes[name].fate == "computed" for name in ("distill", "control"))
    note = " Student and control train at the same time." if both else ""
    screen.print(
        f"`{reflux_command()} run` will take about {whole} on this machine, registration included.{note}",
        soft_wrap=True,
    )
