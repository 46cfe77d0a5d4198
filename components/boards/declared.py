"""The boards that a team has in MLflow, as data. A new one is written here and added to ``ALL``.

Metrics of pipeline runs are logged at the number of their retrain, so that joined over all retrains they make lines;
every pipeline run has the same value in the tag ``run_kind``.
"""

from components.boards.view import Bar, Board, Difference, Images, Line, Parallel, Scatter, Section

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
    shows="Size and latency against accuracy, and which params led there; best first: for anyone who tunes.",
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
            name="From params to results: one line per retrain",
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
                *(Line(metrics=("train/accuracy",)), Line(metrics=("val/accuracy",))),
                *(Line(metrics=("train/loss",)), Line(metrics=("val/loss",))),
                *(Line(metrics=("train/ce",)), Line(metrics=("train/kd",))),
            ),
            columns=2,
        ),
        Section(
            name="Learning rate, gradient norm, images per second",
            charts=(Line(metrics=("lr",)), Line(metrics=("grad_norm",), scale="log"), Line(metrics=("images_per_s",))),
        ),
        Section(
            name="Memory in MB; GPU use in percent",
            charts=(Line(metrics=("memory_mb",)), Line(metrics=("gpu_percent",))),
            columns=2,
        ),
    ),
)

DATA = Board(
    slug="reflux-data",
    name="Data",
    shows="What came in, what was refused and which expectations failed: for the owner of the data.",
    runs=PIPELINES,
    may_lack=("data/class_shift", "data/failed/class_balance_kept"),
    columns=("tags.`dvc.data_md5`", "metrics.`data/train_images`", "metrics.`data/quarantined`"),
    sections=(
        Section(
            name="Labeled and unlabeled images, and classes",
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
    shows="Where the student is wrong, how sure it is, and where it differs from its teacher: for anyone who debugs.",
    runs=PIPELINES,
    columns=("tags.`decision`", "metrics.`test/student_worst_class_recall`", "metrics.`test/student_ece`"),
    newest=4,
    sections=(
        Section(
            name="Recall by class, and which class is mistaken for which",
            charts=(Images(keys=("mistakes/class-recall",)), Images(keys=("mistakes/confusion-matrix",))),
            columns=1,
            height=420,
        ),
        Section(
            name="Most confident mistakes; where student and teacher differ",
            charts=(Images(keys=("mistakes/worst-mistakes",)), Images(keys=("mistakes/disagreements",))),
            columns=1,
            height=420,
        ),
        Section(
            name="Calibration: how often it is right at each confidence",
            charts=(Images(keys=("mistakes/reliability",)),),
            columns=1,
            height=420,
        ),
    ),
)

ALL = (HEALTH, CHOOSE, CURVES, DATA, MISTAKES)
