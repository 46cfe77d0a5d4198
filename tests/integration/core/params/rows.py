"""Every param of ``params.yaml``: the smallest run in which it counts, another value, and what must differ then.

A param without a row fails ``test_sections.py``. A row is one of two things: a run of stages that is observed twice, or
the name of a test elsewhere, which was seen to fail when the param is ignored.
"""

from dataclasses import dataclass
from typing import Any, get_args

from reflux.components.core.params.distill import METHODS, Loss
from reflux.components.core.params.registry import DeviceBound, Gates, SureBound
from reflux.components.core.params.tune import Space

MODEL, HISTORY = "model.safetensors", "history.parquet"


@dataclass(frozen=True)
class Row:
    """A run that a param changes.

    Attributes:
        runs: the stages that run, one after the other, or ``decision`` or ``monitor``.
        value: of the param; other than its default in these runs.
        differs: what the last stage leaves otherwise, by name.
        given: settings of both runs.
    """

    runs: str
    value: Any
    differs: str = MODEL
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proven:
    """A test elsewhere that fails when the param is ignored, as ``file::function``."""

    test: str


RUN_DEVICE = Row("control", "cuda", "refused", ("run.device=cpu",))
JOINT = ("student.weights=artifacts/control/model.safetensors",)
LEARNING = ("pretrain.mode=self-supervised", "pretrain.steps=2", "pretrain.batch_size=16")
SOURCE, SIZED = ("pretrain.source=data/other",), ("pretrain.source=data/sized.csv",)
SUPERVISED = ("pretrain.mode=supervised", *SOURCE)
FEATURES = ("student.weights=distilled-features",)
FINISHED = ("distill.finish=labels",)
TWO_TEACHERS = ("distill.teachers=[artifacts/control/other.safetensors]",)
TINY_TIMM = ("pretrain.model=test_efficientnet",)
MIXED = ("student.augment.mixup=1.0",)
CUT = ("student.augment.cutmix=1.0",)
PROBED = ("finetune.strategy=feature-extraction",)
ROUNDS = ("finetune.rounds=2", "finetune.round_epochs=1")
FROZEN = ("finetune.freeze_batch_norm=true",)
SLICE = ("registry.slices.gates={class: {accuracy: {min: 0.5}}}",)
CHAMPION = ("registry.gates={accuracy: {min: 0.5}}", "registry.champion.margin=0.02")

_TRAINING = {  # what finetune and student share
    "batch_size": 12,
    "optimizer": "sgd",
    "lr": 0.02,
    "schedule": "one-cycle",
    "warmup": 0.5,
    "weight_decay": 0.3,
    "clip_norm": 0.001,
    "accumulate": 2,
    "balance": "sampling",
    "ema_decay": 0.9,
    "precision": "bf16",
}
_VIEWS = {"shift": 0.2, "flip": False, "crop_scale": 0.5, "rotate_deg": 30, "color": 0.5, "erase": 1.0}
_LAUNCHED = "tests/integration/core/runtime/test_launch.py::"


PRETRAIN = "tests/unit/stages/pretrain/test_pruning.py"
PRUNED = f"{PRETRAIN}::test_student_and_control_start_from_what_is_left_and_the_origin_says_so"
SHIPS = (
    "tests/integration/stages/compress/test_main.py::test_the_file_that_ships_is_named_or_chosen_on_validation_images"
)


def _both(name: str, value: Any, differs: str = MODEL, given: tuple[str, ...] = ()) -> dict[str, tuple[Row, ...]]:
    """A param of the student counts for the control and for distillation, whose code hands it on by itself."""
    runs = ("control", "label distill")
    return {f"student.{name}": tuple(Row(each, value, differs, given) for each in runs)}


def _student() -> dict[str, tuple[Row | Proven, ...]]:
    rows: dict[str, tuple[Row, ...]] = {}
    for name, value in _TRAINING.items():
        rows |= _both(name, value)
    for name, value in _VIEWS.items():
        rows |= _both(f"augment.{name}", value)
    rows |= _both("augment.mixup", 1.0) | _both("augment.cutmix", 1.0)
    rows |= _both("augment.mixup_alpha", 0.1, given=MIXED) | _both("augment.cutmix_alpha", 0.1, given=CUT)
    rows["student.balance"] += _both("balance", "logit-adjustment")["student.balance"]
    rows |= _both("sync_batch_norm", False, "synchronized") | _both("model", "resnet8")
    rows |= _both("image_size", 16) | _both("steps", 3) | _both("eval_every", 1, HISTORY)
    weights = Row("pretrain control", "artifacts/control/model.safetensors")
    others = (Row("pretrain label distill", weights.value), Row("distill", "distilled-features"))
    return rows | {"student.weights": (weights, *others), "student.prune": (Proven(PRUNED),)}


def _pretraining() -> dict[str, tuple[Row, ...]]:
    values = {"steps": 3, "batch_size": 24, "lr": 0.5}
    values |= {f"augment.{name}": value for name, value in _VIEWS.items()}
    rows: dict[str, tuple[Row, ...]] = {
        f"pretrain.{name}": (Row("pretrain", value, given=LEARNING),) for name, value in values.items()
    }
    rows["pretrain.mode"] = (
        Row("pretrain", "self-supervised", given=LEARNING[1:]),
        Row("ingest", "self-supervised", "pretraining.json"),
        Row("ingest", "supervised", "pretrain-source/dataset.json", SOURCE),
    )
    rows["pretrain.source"] = (Row("ingest", "data/other.csv", "pretrain-source/dataset.json", SUPERVISED),)
    rows["pretrain.classes"] = (
        Proven("tests/unit/advice/preflight/test_sources.py::test_classes_without_words_are_refused"),
    )
    rows["pretrain.tasks"] = (
        Row("ingest", {"size": 1}, "pretrain-source/manifest.parquet", ("pretrain.mode=supervised", *SIZED)),
        Proven("tests/unit/stages/pretrain/test_tasks.py::test_each_task_has_a_head_and_its_weight_counts"),
    )
    students = Row("pretrain", "student", "student/model.json", LEARNING)
    controls = Row("pretrain control", "student", given=LEARNING)
    return rows | {"pretrain.learns": (students, controls, Row("pretrain label distill", "both", given=LEARNING))}


ADAPTED = "tests/unit/stages/finetune/test_adaptation.py::test_"
LORA = Proven("tests/unit/stages/finetune/test_main.py::test_lora_trains_the_layers_it_is_given_and_the_head")


def _finetune() -> dict[str, tuple[Row, ...]]:
    rows = {f"finetune.{name}": (Row("finetune", value),) for name, value in _TRAINING.items()}
    rows |= {f"finetune.augment.{name}": (Row("finetune", value),) for name, value in _VIEWS.items()}
    rows["finetune.precision"] = (Row("finetune", "bf16"),)
    rows |= {
        "finetune.balance": tuple(
            Row("finetune", value, given=given) for value in ("sampling", "logit-adjustment") for given in ((), PROBED)
        ),
        "finetune.strategy": (Row("finetune", "lp-ft"), Row("finetune", "gradual-unfreezing", given=FROZEN)),
        "finetune.image_size": (Row("finetune", 12),),
        "finetune.epochs": (Row("finetune", 1),),
        "finetune.probe_views": (Row("finetune", 1, given=PROBED),),
        "finetune.probe_steps": (Row("finetune", 3, given=PROBED),),
        "finetune.probe_lr": (Row("finetune", 0.1, given=PROBED),),
        "finetune.layer_decay": (Row("pretrain finetune", 0.5, given=TINY_TIMM),),
        "finetune.l2_sp": (Row("finetune", 10.0),),
        "finetune.freeze_batch_norm": (Row("finetune", True),),
        "finetune.sync_batch_norm": (Row("finetune", False, "synchronized"),),
        "finetune.lora_rank": (LORA,),
        "finetune.lora_targets": (LORA,),
        "finetune.adaptation": (Proven(f"{ADAPTED}each_method_learns_from_all_three_and_leaves_a_plain_teacher"),),
        "finetune.adaptation_weight": (Proven(f"{ADAPTED}the_weight_of_the_adaptation_counts"),),
        "finetune.rounds": (Row("finetune", 2, HISTORY),),
        "finetune.round_epochs": (Row("finetune", 2, HISTORY, ROUNDS),),
    }
    rows |= {
        f"finetune.round_augment.{name}": (Row("finetune", value, HISTORY, ROUNDS),) for name, value in _VIEWS.items()
    }
    return rows


def _every_gate() -> dict[str, tuple[Row, ...]]:
    """In :func:`tests.integration.core.params.test_sections.decision` every figure is 0.5."""
    rows = {}
    for figure, field in Gates.model_fields.items():
        rows[f"registry.gates.{figure}.min"] = (Row("decision", 0.6, figure),)
        rows[f"registry.gates.{figure}.max"] = (Row("decision", 0.4, figure),)
        if SureBound in get_args(field.annotation):
            given = (f"registry.gates.{figure}.min=0.49",)
            rows[f"registry.gates.{figure}.confidence"] = (Row("decision", 0.99, figure, given),)
        if DeviceBound in get_args(field.annotation):
            given = (f"registry.gates.{figure}.max=0.6",)
            rows[f"registry.gates.{figure}.device"] = (Row("decision", "pi5", figure, given),)
    return rows


_METHODS: dict[str, dict[str, Any]] = {  # another value of each param of each method
    "kd": {"weight": 2.0, "temperature": 2.0},
    "dkd": {"weight": 2.0, "alpha": 3.0, "beta": 1.0, "temperature": 2.0},
    "dist": {"weight": 4.0, "beta": 3.0, "gamma": 3.0, "temperature": 1.0},
    "mse-logits": {"weight": 2.0},
    "pseudo-labels": {"weight": 2.0},
    "temporal-ensembling": {"weight": 2.0, "sharpness": 1.0},
    "fitnet": {"weight": 1.0, "student": "stage:-1", "teacher": "stage:-1"},
    "attention-transfer": {"weight": 1.0, "student": ["stage:-1"], "teacher": ["stage:-1"]},
    "similarity-preserving": {"weight": 1.0, "student": "stage:-2", "teacher": "stage:-2"},
    "reviewkd": {"weight": 2.0, "student": ["stage:-2"], "teacher": ["stage:-2"]},
    "vkd": {"weight": 2.0, "student": "stage:-1", "teacher": "stage:-1"},
    "rkd": {"weight": 2.0, "distance": 1.0, "angle": 1.0, "student": "stage:-1", "teacher": "stage:-1"},
    "crd": {
        **{"weight": 2.0, "dimensions": 16, "negatives": 8, "temperature": 0.5, "momentum": 0.1},
        **{"student": "stage:-1", "teacher": "stage:-1"},
    },
    "logit-standardization": {"weight": 3.0, "temperature": 1.0},
    "teacher-assistant": {"assistants": ["resnet8_slim"]},
    "born-again": {"generations": 3},
    "deep-mutual-learning": {"peers": 2},
}
# What an entry has in both runs, where its defaults are too much for so tiny a run.
METHOD_GIVEN: dict[str, dict[str, Any]] = {
    "attention-transfer": {"student": ["stage:-2"], "teacher": ["stage:-2"]},
    "reviewkd": {"student": ["stage:-3"], "teacher": ["stage:-3"]},
    "vkd": {"student": "stage:-2", "teacher": "stage:-2"},
    "crd": {"negatives": 16},
    "teacher-assistant": {"assistants": ["resnet8"]},
}

ROWS: dict[str, tuple[Row | Proven, ...]] = {
    "project.name": (Row("control", "other", "experiment"),),
    "seed": tuple(Row(runs, 7) for runs in ("pretrain", "finetune", "control", "label distill")),
    "run.device": (RUN_DEVICE,),
    "run.threads": tuple(Row(stage, 2, "threads") for stage in ("finetune", "label", "distill", "control")),
    "run.workers": tuple(Row(stage, 1, "workers") for stage in ("finetune", "label", "distill", "control")),
    "run.compile": tuple(Row(stage, True, "compiled") for stage in ("finetune", "distill", "control")),
    "run.deterministic": tuple(
        Row(stage, True, "deterministic") for stage in ("finetune", "label", "distill", "control")
    ),
    "run.checkpoint_every_s": (Row("control", 1e-6, "checkpoints", ("student.eval_every=4",)),),
    "run.launcher": (Proven(_LAUNCHED + "test_a_user_error_is_reported_once_and_not_retried"),),
    "run.nproc_per_node": (Proven(_LAUNCHED + "test_more_processes_than_devices_are_a_sentence"),),
    "run.nnodes": (Proven(_LAUNCHED + "test_two_hosts_train_together_and_survive_one_being_cut_off"),),
    "run.rdzv_endpoint": (Proven(_LAUNCHED + "test_two_hosts_train_together_and_survive_one_being_cut_off"),),
    "run.max_restarts": (Proven(_LAUNCHED + "test_processes_that_are_lost_too_often_end_the_stage"),),
    "run.lost_after_s": (Proven(_LAUNCHED + "test_two_hosts_train_together_and_survive_one_being_cut_off"),),
    "run.placement": (
        Proven("tests/integration/flows/test_retrain.py::test_with_two_pools_the_gpu_trains_and_the_cpu_does_the_rest"),
    ),
    "run.retrain_on_upgrade": (
        Proven(
            "tests/unit/flows/pipeline/test_skip.py::"
            "test_another_release_of_torch_is_another_input_unless_a_param_says_that_it_is_none"
        ),
        Proven(
            "tests/unit/core/runtime/test_installed.py::"
            "test_a_param_keeps_the_results_of_old_releases_and_the_run_says_so"
        ),
    ),
    "ingest.source": (Row("ingest", "data/listed.csv", "dataset.json"),),
    "ingest.image_size": (Row("ingest", 9, "dataset.json"),),
    "ingest.channels": (Row("ingest", 1, "dataset.json"),),
    "ingest.storage": (Row("ingest", "encoded", "shards/train/encoding.json"),),
    "ingest.decoded_max_gb": (Row("ingest", 0, "shards/train/encoding.json"),),
    "ingest.split.val": (Row("ingest", 0.4, "shards/val/ids.npy"),),
    "ingest.split.test": (Row("ingest", 0.4, "shards/test/ids.npy"),),
    "ingest.max_quarantined": (Row("ingest", 0.001, "refused"),),
    "ingest.min_size_px": (Row("ingest", 13, "refused"),),
    "ingest.max_megapixels": (Row("ingest", 0.005, "quarantine.csv"),),
    "ingest.slices": (Row("ingest", ["camera"], "manifest.parquet", ("ingest.source=data/listed.csv",)),),
    "ingest.source_domain": (Row("ingest", "data/tiny", "source-domain/dataset.json"),),
    "ingest.license": (Row("ingest", "https://spdx.org/licenses/MIT", "croissant.json"),),
    "ingest.group": (Row("ingest", "patient", "shards/train/ids.npy", ("ingest.source=data/listed.csv",)),),
    "validate.near_duplicate_bits": (Row("validate", 16, "no_test_image_looks_trained_on"),),
    "validate.max_class_shift": (Row("validate", 0.9, "class_balance_kept"),),
    "pretrain.model": (Row("pretrain", "resnet14"),),
    "pretrain.weights": (Row("pretrain", "artifacts/finetune/model.safetensors"),),
    **_pretraining(),
    "label.views": (Row("label", 3, "manifest.json"), Row("label", "auto", "manifest.json")),
    "label.top_k": (Row("label", 1, "manifest.json"),),
    "label.batch_size": (Row("label", 16, "largest batch", ("seed=3",)),),
    "label.proof": (Row("label", 5, "manifest.json"),),
    "distill.when": (Row("finetune", "joint", given=JOINT),),
    "distill.teacher": (Row("label", "live", "store/000000.npy"), Row("label distill", "live", "teacher asked")),
    "distill.teachers": (Row("label distill", ["artifacts/control/other.safetensors"]),),
    "distill.ensemble": (Row("label distill", "confidence", given=TWO_TEACHERS),),
    "distill.mixed_targets": (Row("label distill", "mixture", given=MIXED),),
    "distill.label_weight": (Row("distill", 1.0),),
    "distill.teacher_weight": (Row("distill", 3.0),),
    "distill.feature_share": (Row("distill", 0.5, given=FEATURES),),
    "distill.finish": (Row("distill", "labels"),),
    "distill.finish_share": (Row("distill", 0.5, given=FINISHED),),
    "distill.finish_lr": (Row("distill", 0.1, given=FINISHED),),
    "compress.max_logit_difference": (
        Proven("tests/integration/stages/compress/test_main.py::test_no_file_appears_when_one_is_not_the_student"),
    ),
    "compress.ships": (Proven(SHIPS),),
    "compress.prefer": (
        Proven("tests/integration/stages/compress/test_main.py::test_auto_measures_the_time_where_speed_is_preferred"),
    ),
    "compress.max_loss": (
        Proven("tests/integration/stages/compress/test_main.py::test_an_int8_file_that_loses_too_much_does_not_ship"),
    ),
    "evaluate.bootstrap": (
        Proven("tests/integration/stages/evaluate/test_main.py::test_the_params_reach_what_measures"),
    ),
    "evaluate.license": (
        Proven("tests/integration/stages/evaluate/test_main.py::test_the_params_reach_what_measures"),
    ),
    "evaluate.latency_runs": (
        Proven("tests/integration/stages/evaluate/test_main.py::test_the_params_reach_what_measures"),
    ),
    "evaluate.probe": (
        Proven("tests/integration/stages/evaluate/test_main.py::test_the_probe_holds_test_images_if_a_param_says_so"),
    ),
    "registry.model_name": (
        Proven("tests/integration/registry/test_command.py::test_each_command_says_what_it_did_with_its_exit_code"),
    ),
    "registry.slices.min_count": (Row("decision", 50, "slices.class.accuracy", SLICE),),
    "registry.slices.gates": (Row("decision", {}, "slices.class.accuracy", SLICE),),
    "registry.slices.gates.*.accuracy.min": (Row("decision", 0.4, "slices.class.accuracy"),),
    "registry.slices.gates.*.accuracy.max": (Row("decision", 0.3, "slices.class.accuracy"),),
    "registry.slices.gates.*.accuracy.confidence": (
        Row("decision", 0.99, "slices.class.accuracy", ("registry.slices.gates={class: {accuracy: {min: 0.3}}}",)),
    ),
    "registry.worse_than_control": (
        Proven("tests/unit/registry/policy/test_decision.py::test_the_policy_is_what_the_params_state"),
        Proven("tests/unit/registry/policy/test_decision.py::test_a_worse_student_is_promoted_where_a_param_says_so"),
    ),
    "registry.champion.margin": (Row("decision", 0.001, "champion", CHAMPION),),
    "registry.champion.alpha": (Row("decision", 0.5, "advantage", CHAMPION),),
    "registry.champion.smaller": (Row("decision", 1.01, "advantage", CHAMPION),),
    "registry.champion.faster": (Row("decision", 1.01, "advantage", CHAMPION),),
    "registry.approval": (
        Proven("tests/integration/registry/test_command.py::test_each_command_says_what_it_did_with_its_exit_code"),
    ),
    "monitor.alpha": (Row("monitor", 0.5, "differs"),),
    "monitor.n": (Row("monitor", 1, "retrain"),),
    "monitor.m": (
        Proven(
            "tests/integration/flows/test_monitor.py::test_a_check_remembers_what_the_last_ones_said_of_the_same_champion"
        ),
    ),
    **{
        f"tune.space.{knob}": (
            Proven("tests/unit/advice/tune/test_space.py::test_each_knob_is_narrowed_by_the_params"),
            Proven("tests/unit/advice/tune/test_space.py::test_each_knob_decides_its_params"),
        )
        for knob in Space.model_fields
    },
    **_student(),
    **_finetune(),
    **_every_gate(),
    **{
        f"distill.method.{method}.{param}": (Row("label distill", value),)
        for method, params in _METHODS.items()
        for param, value in params.items()
    },
    "distill.method.temporal-ensembling.momentum": (  # of images that are seen more than once
        Row("label distill", 0.1, given=("student.steps=16", "student.eval_every=8")),
    ),
    **{
        f"distill.method.{method}.warmup": (Row("label distill", 0.75),)
        for method, entry in METHODS.items()
        if issubclass(entry, Loss)
    },
}
