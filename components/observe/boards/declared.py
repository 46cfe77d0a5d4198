"""The boards that a team has in MLflow, as data; each is registered under its slug.

Metrics of pipeline runs are logged at the number of their retrain, so that joined over all retrains they make lines;
every pipeline run has the same value in the tag ``run_kind``.
"""

from reflux.components.core.registry import Registry
from reflux.components.observe.boards.view import (
    Bar,
    Board,
    Chart,
    Difference,
    Images,
    Line,
    Parallel,
    Scatter,
    Section,
)

BENCH, BENCH_PICTURE = "bench on one machine", "bench/files"
# Of pipeline, tune, tune trial and BENCH, which have an "ne": MLflow's filter has no OR.
STUDENTS = "tags.run_kind LIKE '%ne%'"
PIPELINES, TRAININGS = "tags.run_kind = 'pipeline'", "tags.role LIKE '%'"

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
    *("no_image_in_two_splits", "no_constant_images", "no_test_image_looks_trained_on", "known_labels"),
    *("one_label_an_image", "every_class_in_each_split", "recalls_can_be_known", "class_balance_kept"),
    "nothing_quarantined",
)

BOARDS: Registry[Board] = Registry("boards")


def board(declared: Board) -> Board:
    """Let ``reflux run`` and ``reflux boards`` keep a board current in MLflow.

    Raises:
        ValueError: its slug is taken.
    """
    BOARDS.add(declared.slug, declared)
    return declared


def _row(name: str, *charts: Chart) -> Section:
    return Section(name=name, charts=charts, columns=len(charts))


def _column(name: str, *charts: Chart) -> Section:
    return Section(name=name, charts=charts, columns=1, height=420)


def _lines(*metrics: str) -> Line:
    return Line(metrics=metrics)


def _pictures(name: str, *keys: str) -> Section:
    return _column(name, *(Images(keys=(key,)) for key in keys))


HEALTH = board(
    Board(
        slug="reflux-retraining-health",
        name="Retraining health",
        shows="Did the last retraining help, what is in production, what was refused: for the lead, daily.",
        runs=PIPELINES,
        by="run_kind",
        may_lack=("data/class_shift", *(f"limit/{gate}" for gate in LIMITS)),
        columns=("tags.`decision`", "tags.`version`", "metrics.`test/student_accuracy`", "metrics.`gain/accuracy`"),
        sections=(
            _row(
                "Accuracy on the frozen test split, and its gate",
                _lines("test/student_accuracy", "test/teacher_accuracy", "test/control_accuracy"),
                _lines("test/student_accuracy", "limit/accuracy_min"),
            ),
            _row(
                "Gain over the control (95 % interval), gap to the teacher",
                _lines("gain/accuracy", "gain/ci95_low", "gain/ci95_high"),
                _lines("gain/gap_to_teacher"),
            ),
            _row(
                "What ships, and its gates: KB, ms, the weakest class",
                _lines("student/size_kb", "limit/size_kb_max"),
                _lines("student/latency_ms_p95", "limit/latency_ms_p95_max"),
                _lines("test/student_worst_class_recall", "limit/worst_class_recall_min"),
            ),
            _row(
                "Promoted (1) or not (0); decisions on this test split",
                _lines("decision/promoted"),
                _lines("decision/uses_of_test_split"),
            ),
            _row(
                "Images, and the largest shift of a class's share",
                _lines("data/train_images", "data/unlabeled_images"),
                _lines("data/class_shift"),
            ),
            _row(
                "Wall time in seconds, and cost in core hours",
                _lines("time/wall_s", "time/training_s"),
                _lines("time/core_hours"),
            ),
        ),
    )
)

CHOOSE = board(
    Board(
        slug="reflux-choose-a-student",
        name="Choose a student",
        shows="Size and latency against accuracy, which params led there, and what files cost: for anyone who tunes.",
        runs=STUDENTS,
        may_lack=("tune/size_kb", "tune/latency_ms_p95", "tune/accuracy"),
        order_by="metrics.`test/student_accuracy`",
        columns=(
            *("metrics.`test/student_accuracy`", "metrics.`student/size_kb`", "metrics.`student/latency_ms_p95`"),
            *("params.`student.model`", "params.`student.steps`", "params.`distill.method`", "tags.`decision`"),
        ),
        sections=(
            _row(
                "Accuracy against KB, ms, parameters: best is up and left",
                Scatter(x="student/size_kb", y="test/student_accuracy"),
                Scatter(x="student/latency_ms_p95", y="test/student_accuracy"),
                Scatter(x="student/params", y="test/student_accuracy"),
            ),
            _column(
                "From params to results: one line per retrain",
                Parallel(
                    params=(
                        *("student.model", "student.steps", "student.lr", "distill.method"),
                        *("distill.label_weight", "label.views"),
                    ),
                    metrics=("student/size_kb", "student/latency_ms_p95", "test/student_accuracy"),
                ),
            ),
            _column("What differs", Difference()),
            _pictures("Students of reflux tune: the front and the gates", "tune/front"),
            _row(
                "Its trials, on validation images",
                Scatter(x="tune/size_kb", y="tune/accuracy"),
                Scatter(x="tune/latency_ms_p95", y="tune/accuracy"),
            ),
            _pictures("Files of reflux bench in their runtimes", BENCH_PICTURE),
        ),
    )
)

CURVES = board(
    Board(
        slug="reflux-training-curves",
        name="Training curves",
        shows="How teacher, student and control learned, newest first: for anyone who trains.",
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
                    *(_lines("train/accuracy"), _lines("val/accuracy")),
                    *(_lines("train/loss"), _lines("val/loss")),
                    *(_lines("train/ce"), _lines("train/kd")),
                ),
                columns=2,
            ),
            _row(
                "Learning rate, gradient norm, images per second",
                _lines("lr"),
                Line(metrics=("grad_norm",), scale="log"),
                _lines("images_per_s"),
            ),
            _row("Memory in MB; GPU use in percent", _lines("memory_mb"), _lines("gpu_percent")),
        ),
    )
)

DATA = board(
    Board(
        slug="reflux-data",
        name="Data",
        shows="What came in, what was refused and which expectations failed: for the owner of the data.",
        runs=PIPELINES,
        may_lack=("data/class_shift", "data/failed/class_balance_kept"),
        columns=("tags.`dvc.data_md5`", "metrics.`data/train_images`", "metrics.`data/quarantined`"),
        sections=(
            _row(
                "Labeled and unlabeled images, and classes",
                *(Bar(metric="data/train_images"), Bar(metric="data/unlabeled_images"), Bar(metric="data/classes")),
            ),
            _row(
                "Left out: damaged, repeats; shift of a class's share",
                *(Bar(metric="data/quarantined"), Bar(metric="data/repeats"), Bar(metric="data/class_shift")),
            ),
            _row(
                "Expectations not met, and the rows that failed each",
                *(Bar(metric="data/critical_failures"), Bar(metric="data/warnings")),
                _lines(*(f"data/failed/{name}" for name in EXPECTATIONS)),
            ),
            _pictures("What the classes look like, and what was quarantined", "data/samples", "data/quarantine"),
        ),
    )
)

MISTAKES = board(
    Board(
        slug="reflux-mistakes",
        name="Mistakes",
        shows=(
            "Where the student is wrong, how sure it is, and where it differs from its teacher: for anyone who debugs."
        ),
        runs=PIPELINES,
        columns=("tags.`decision`", "metrics.`test/student_worst_class_recall`", "metrics.`test/student_ece`"),
        newest=4,
        sections=(
            _pictures(
                "Recall by class, and which class is mistaken for which",
                *("mistakes/class-recall", "mistakes/confusion-matrix"),
            ),
            _pictures(
                "Most confident mistakes; where student and teacher differ",
                *("mistakes/worst-mistakes", "mistakes/disagreements"),
            ),
            _pictures("Calibration: how often it is right at each confidence", "mistakes/reliability"),
        ),
    )
)
