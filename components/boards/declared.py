"""The boards that a team finds in MLflow, and what keeps them current: ``reflux run`` and ``reflux boards``.

Metrics of pipeline runs are logged at the number of their retrain, so that joined over all retrains they
make lines; every pipeline run has the same value in the tag ``run_kind``.
"""

import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from components.boards import view as boards
from components.boards.view import Bar, Board, Difference, Images, Line, Parallel, Scatter, Section
from components.core.errors import UserError
from components.core.runtime import tracking
from components.registry import client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PIPELINES, TRAININGS = "tags.run_kind = 'pipeline'", "tags.role LIKE '%'"
VERSIONS_TAG = "reflux.boards"
_NOTE, _OURS = "mlflow.note.content", "<!-- Reflux keeps what stands above; what you write below stays. -->"
_OLDEST_WITH_VIEWS = (3, 15)
_RUNS_LOOKED_AT = 50

PICTURES = {
    "data/samples": "ingest/samples.png",
    "data/quarantine": "ingest/quarantine.png",
    **{
        f"mistakes/{name}": f"evaluate/figures/{name}.png"
        for name in ("class-recall", "confusion-matrix", "worst-mistakes", "disagreements", "reliability")
    },
}

LIMITS = ("accuracy_min", "worst_class_recall_min", "size_kb_max", "latency_ms_p95_max")

EXPECTATIONS = (
    *("no_image_in_two_splits", "no_look_alike_in_two_splits", "width_in_range", "height_in_range", "known_modes"),
    *("few_constant_images", "no_constant_images", "known_labels", "one_label_an_image", "enough_images_a_class"),
    *("class_balance_kept", "nothing_quarantined"),
)

HEALTH = Board(
    slug="reflux-retraining-health",
    name="Retraining health",
    shows="Did the last retraining help, what is in production, what was refused: for the lead, daily.",
    runs=PIPELINES,
    by="run_kind",
    may_lack=("data/class_shift", *(f"limit/{gate}" for gate in LIMITS)),
    columns=("tags.`decision`", "tags.`version`", "metrics.`test/student_accuracy`", "metrics.`gain/accuracy`"),
    sections=(
        Section(
            name="Accuracy on the frozen test split, and its gate",
            charts=(
                Line(metrics=("test/student_accuracy", "test/teacher_accuracy", "test/control_accuracy")),
                Line(metrics=("test/student_accuracy", "limit/accuracy_min")),
            ),
            columns=2,
        ),
        Section(
            name="Gain over the control (95 % interval), gap to the teacher",
            charts=(
                Line(metrics=("gain/accuracy", "gain/ci95_low", "gain/ci95_high")),
                Line(metrics=("gain/gap_to_teacher",)),
            ),
            columns=2,
        ),
        Section(
            name="What ships, and its gates: KB, ms, the weakest class",
            charts=(
                Line(metrics=("student/size_kb", "limit/size_kb_max")),
                Line(metrics=("student/latency_ms_p95", "limit/latency_ms_p95_max")),
                Line(metrics=("test/student_worst_class_recall", "limit/worst_class_recall_min")),
            ),
        ),
        Section(
            name="Promoted (1) or not (0); decisions on this test split",
            charts=(Line(metrics=("decision/promoted",)), Line(metrics=("decision/uses_of_test_split",))),
            columns=2,
        ),
        Section(
            name="Images, and the largest shift of a class's share",
            charts=(Line(metrics=("data/train_images", "data/unlabeled_images")), Line(metrics=("data/class_shift",))),
            columns=2,
        ),
        Section(
            name="Wall time in seconds, and cost in core hours",
            charts=(Line(metrics=("time/wall_s", "time/training_s")), Line(metrics=("time/core_hours",))),
            columns=2,
        ),
    ),
)

CHOOSE = Board(
    slug="reflux-choose-a-student",
    name="Choose a student",
    shows="Size and latency against accuracy, and which knobs led there; best first: for whoever tunes.",
    runs=PIPELINES,
    order_by="metrics.`test/student_accuracy`",
    columns=(
        *("metrics.`test/student_accuracy`", "metrics.`student/size_kb`", "metrics.`student/latency_ms_p95`"),
        *("params.`student.model`", "params.`student.steps`", "params.`distill.method`", "tags.`decision`"),
    ),
    sections=(
        Section(
            name="Accuracy against KB, ms, parameters: best is up and left",
            charts=(
                Scatter(x="student/size_kb", y="test/student_accuracy"),
                Scatter(x="student/latency_ms_p95", y="test/student_accuracy"),
                Scatter(x="student/params", y="test/student_accuracy"),
            ),
        ),
        Section(
            name="From knobs to outcome: a line a retrain",
            charts=(
                Parallel(
                    params=(
                        *("student.model", "student.steps", "student.lr", "distill.method"),
                        *("distill.label_weight", "label.views"),
                    ),
                    metrics=("student/size_kb", "student/latency_ms_p95", "test/student_accuracy"),
                ),
            ),
            columns=1,
            height=420,
        ),
        Section(name="What differs", charts=(Difference(),), columns=1, height=420),
    ),
)

CURVES = Board(
    slug="reflux-training-curves",
    name="Training curves",
    shows="How teacher, student and control learnt, the newest first: for whoever trains.",
    runs=TRAININGS,
    newest=3,
    by="role",
    joined=False,
    may_lack=("gpu_percent", "train/kd"),
    columns=("tags.`role`", "metrics.`val/accuracy`", "metrics.`images_per_s`"),
    sections=(
        Section(
            name="Accuracy and loss in training and validation, by step",
            charts=(
                *(Line(metrics=("train/accuracy",)), Line(metrics=("val/accuracy",))),
                *(Line(metrics=("train/loss",)), Line(metrics=("val/loss",))),
                *(Line(metrics=("train/ce",)), Line(metrics=("train/kd",))),
            ),
            columns=2,
        ),
        Section(
            name="Learning rate, norm of the gradient, images a second",
            charts=(Line(metrics=("lr",)), Line(metrics=("grad_norm",), scale="log"), Line(metrics=("images_per_s",))),
        ),
        Section(
            name="Memory in MB; use of the GPU in percent",
            charts=(Line(metrics=("memory_mb",)), Line(metrics=("gpu_percent",))),
            columns=2,
        ),
    ),
)

DATA = Board(
    slug="reflux-data",
    name="Data",
    shows="What came in, what was refused and which expectations failed: for whoever owns the data.",
    runs=PIPELINES,
    may_lack=("data/class_shift", "data/failed/class_balance_kept"),
    columns=("tags.`dvc.data_md5`", "metrics.`data/train_images`", "metrics.`data/quarantined`"),
    sections=(
        Section(
            name="Labelled and unlabelled images, and classes",
            charts=(Bar(metric="data/train_images"), Bar(metric="data/unlabeled_images"), Bar(metric="data/classes")),
        ),
        Section(
            name="Left out: unreadable, repeats; shift of a class's share",
            charts=(Bar(metric="data/quarantined"), Bar(metric="data/repeats"), Bar(metric="data/class_shift")),
        ),
        Section(
            name="Expectations not met, and the rows that failed each",
            charts=(
                Bar(metric="data/critical_failures"),
                Bar(metric="data/warnings"),
                Line(metrics=tuple(f"data/failed/{name}" for name in EXPECTATIONS)),
            ),
        ),
        Section(
            name="What the classes look like, and what was quarantined",
            charts=(Images(keys=("data/samples",)), Images(keys=("data/quarantine",))),
            columns=1,
            height=420,
        ),
    ),
)

MISTAKES = Board(
    slug="reflux-mistakes",
    name="Mistakes",
    shows="Where the student errs, how sure it is of it, and where it differs from its teacher: for whoever debugs.",
    runs=PIPELINES,
    columns=("tags.`decision`", "metrics.`test/student_worst_class_recall`", "metrics.`test/student_ece`"),
    newest=4,
    sections=(
        Section(
            name="Recall of each class, and which class is taken for which",
            charts=(Images(keys=("mistakes/class-recall",)), Images(keys=("mistakes/confusion-matrix",))),
            columns=1,
            height=420,
        ),
        Section(
            name="The surest mistakes; where teacher and student disagree",
            charts=(Images(keys=("mistakes/worst-mistakes",)), Images(keys=("mistakes/disagreements",))),
            columns=1,
            height=420,
        ),
        Section(
            name="Calibration: how often it is right when it is so sure",
            charts=(Images(keys=("mistakes/reliability",)),),
            columns=1,
            height=420,
        ),
    ),
)

ALL = (HEALTH, CHOOSE, CURVES, DATA, MISTAKES)


def keep(experiment: str, champion: str) -> list[str]:
    """Write the boards that are new or have changed, and the experiment's note; views that people made are left alone.

    Args:
        experiment: the experiment's name.
        champion: what is in production, a sentence of Markdown for the note.

    Returns:
        What could not be done, a sentence each; nothing of it is worth failing a run.
    """
    from mlflow.exceptions import MlflowException

    mlflow = tracking.client()
    try:
        with client.translate_errors():
            found = mlflow.get_experiment_by_name(experiment)
            if found is None:
                return []
            if too_old := _too_old():
                _set(mlflow, found, _NOTE, note(found, champion, ()))
                return [f"{too_old}: there are no boards"]
            versions = _read(found.tags.get(VERSIONS_TAG, "{}"))
            problems = [problem for board in ALL for problem in _keep(mlflow, found, board, versions)]
            _set(mlflow, found, VERSIONS_TAG, json.dumps(versions))
            _set(mlflow, found, _NOTE, note(found, champion, ALL))
            return problems
    except (MlflowException, UserError) as error:
        return [f"MLflow took no boards ({str(error).splitlines()[0]})"]


def links(experiment_id: str, address: str) -> list[tuple[str, str, str]]:
    """Name, address and purpose of each board; ``address`` is of MLflow's page."""
    return [(board.name, f"{address.rstrip('/')}/{board.link(experiment_id)}", board.shows) for board in ALL]


def note(experiment: Any, champion: str, shown: Sequence[Board]) -> str:
    """The experiment's note: the boards' links in the first line, which is all that MLflow shows of a folded note.

    What people wrote below the marker, or before there was one, stays.
    """
    first = " · ".join(f"[{board.name}]({board.link(experiment.experiment_id)})" for board in shown)
    before = experiment.tags.get(_NOTE, "")
    theirs = before.partition(_OURS)[2] if _OURS in before else f"\n\n{before}" if before else ""
    return "\n\n".join([f"Boards: {first}"] * bool(shown) + [champion, _OURS]) + theirs


def _keep(mlflow: "MlflowClient", experiment: Any, board: Board, versions: dict[str, tuple[int, str]]) -> list[str]:
    """Write one board, if what is there is another; says what could not be done."""
    retrains = _runs(mlflow, experiment, PIPELINES)
    runs = retrains if board.runs == PIPELINES else _runs(mlflow, experiment, board.runs)
    present = _metrics(runs)
    hidden = present | _metrics(retrains)  # MLflow shows the parents of child runs with them
    version, digest = versions.get(board.slug, (0, ""))
    version += digest != board.digest()
    try:
        view = board.view(version, hidden, PICTURES, _since_ms(runs, board.newest), int(time.time() * 1000))
    except boards.TooLarge as error:
        return [f"It is too much for MLflow: {error}, so it stays as it was"]
    kept = experiment.tags.get(boards.TAG + board.slug, "{}")
    if _without_times(kept) != _without_times(view):
        mlflow.set_experiment_tag(experiment.experiment_id, boards.TAG + board.slug, view)
    versions[board.slug] = (version, board.digest())
    lacking = sorted(board.metrics() - present - set(board.may_lack))
    return [f"No run has {', '.join(lacking)}, which the board {board.name} shows"] if present and lacking else []


def _runs(mlflow: "MlflowClient", experiment: Any, which: str) -> list["Run"]:
    """The newest runs first."""
    return list(mlflow.search_runs([experiment.experiment_id], which, max_results=_RUNS_LOOKED_AT))


def _since_ms(runs: Sequence["Run"], newest: int) -> int:
    """When the first run of the newest retrains among these began; a retrain that trained nothing has no training."""
    retrains: set[str] = set()
    since = 0
    for run in runs:
        retrains.add(run.data.tags.get("mlflow.parentRunId", run.info.run_id))
        if len(retrains) > newest:
            break
        since = run.info.start_time
    return since


def _metrics(runs: Sequence["Run"]) -> frozenset[str]:
    return frozenset().union(*(run.data.metrics for run in runs))


def _set(mlflow: "MlflowClient", experiment: Any, key: str, value: str) -> None:
    if experiment.tags.get(key) != value:
        mlflow.set_experiment_tag(experiment.experiment_id, key, value)


def _without_times(view: str) -> dict[str, Any]:
    return {key: value for key, value in _read(view).items() if not key.endswith("At")}


def _read(text: str) -> dict[str, Any]:
    """A tag's JSON; nothing when a person has edited it to something else, which is then written anew."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _too_old() -> str | None:
    """A sentence when the server that shows the page does not know saved views."""
    uri = tracking.uri() or ""
    if not uri.startswith("http"):
        return None
    import requests

    answer = requests.get(f"{uri.rstrip('/')}/version", timeout=10)
    numbers = re.match(r"(\d+)\.(\d+)", answer.text)
    if numbers is None or tuple(map(int, numbers.groups())) >= _OLDEST_WITH_VIEWS:
        return None
    return (
        f"MLflow {answer.text.strip()} at {tracking.without_password(uri)} knows no saved views, which came with 3.15"
    )
