"""No param is ignored: each is changed in the smallest run in which it counts, and what it decides must differ."""

import ast
import hashlib
import importlib
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from reflux.components.core.data import shards
from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import METHODS
from reflux.components.core.params.file import check_overrides, override_params
from reflux.components.core.params.section import Section
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.stage import Stage
from reflux.components.core.shift import NO_PREDICTIONS, STATISTICS, Sample
from reflux.components.core.training import loop
from reflux.components.modalities.image.models.pixel_model import pixel_model, save
from reflux.components.registry.ledger.record import Grounds
from reflux.components.registry.policy.comparison import ChampionEvaluation
from reflux.components.registry.policy.decision import decide
from reflux.components.stages.distill import trainer
from reflux.components.stages.label import __main__ as label
from reflux.components.stages.validate.history import HISTORY, remember
from reflux.flows.monitor import judge
from tests.datasets import SMALL, class_folders, noise
from tests.datasets import save as save_image
from tests.integration.core.params.directions import DIRECTIONS, ENDS, figures
from tests.integration.core.params.rows import METHOD_GIVEN, ROWS, Proven, Row
from tests.workspaces import ROOT, training_workspace, watched

TRAINING = """
    finetune.strategy=full finetune.epochs=2 finetune.batch_size=20 finetune.lr=0.01 finetune.freeze_batch_norm=false
    finetune.augment.crop_scale=0.9 student.steps=4 student.eval_every=2 student.batch_size=8 student.precision=fp32
    finetune.precision=fp32 student.weight_decay=0 finetune.weight_decay=0 label.proof=4
"""
CHANGES = [(name, row) for name, rows in ROWS.items() for row in rows if isinstance(row, Row)]
METHOD = "distill.method."
_UNSTEADY = ("images_per_s", "memory_mb", "gpu_percent")


def params_of(model: type[Section], above: str = "") -> Iterator[str]:
    """The dotted name of each param of a section; what a user names is a star."""
    for name, field in model.model_fields.items():
        path = above + (field.alias or name)
        if above.startswith(METHOD) and name == "name":
            continue
        inner = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
        parts = [a for a in inner if issubclass(a, Section)]
        if path == "distill.method":
            for method, entry in METHODS.items():
                yield from params_of(entry, f"{path}.{method}.")
        elif not parts:
            yield path
        elif get_origin(field.annotation) is dict:
            yield path
            yield from params_of(parts[0], f"{path}.*.")
        else:
            yield from params_of(parts[0], f"{path}.")


def test_every_param_has_a_row_and_every_row_is_of_a_param():
    assert sorted(ROWS) == sorted(params_of(Params)), "a new param needs a row in rows.py, which says what it changes"


@pytest.mark.parametrize(
    "test", sorted({row.test for rows in ROWS.values() for row in rows if isinstance(row, Proven)})
)
def test_a_test_that_a_row_names_is_there(test: str):
    file, _, function = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.fixture(scope="module")
def projects(tmp_path_factory) -> dict[str, Path]:
    """A project before ingest, one that is ingested, and one whose teacher is trained."""
    home = tmp_path_factory.mktemp("projects")
    raw = _raw(home / "ingest")
    trained = training_workspace(home / "train")
    override_params(TRAINING.split(), trained / "params.yaml")
    facts = trained / "artifacts/ingest/images.json"  # with four classes that no image shows, for label.top_k
    facts.write_text(facts.read_text().replace('["dark", "bright"]', '["dark", "bright", "a", "b", "c", "d"]'))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        for stage in ("pretrain", "finetune", "label"):
            run(stage, load(()))
        torch.manual_seed(5)
        Path("artifacts/control").mkdir()
        for name, network in (("model", "resnet8_slim"), ("other", "resnet8")):
            other = pixel_model(network, ("dark", "bright", *"abcd"), 16, 1, (0.5,), (0.2,))
            save(other, Path(f"artifacts/control/{name}.safetensors"))
    ingested = shutil.copytree(raw, home / "validate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ingested)
        run("ingest", load(()))
        remember(Path(HISTORY), "tiny", "0" * 64, {"cat": 0.8, "dog": 0.1, "owl": 0.1})
    return {"ingest": raw, "validate": ingested, "train": trained}


def _raw(folder: Path) -> Path:
    """Random images, and among them a large one, one of one color, an unreadable one, and several that look alike."""
    images = class_folders(folder / "data/tiny")
    save_image(noise(100, 80), images / "cat" / "large.png")
    save_image(Image.new("RGB", (12, 12), (9, 9, 9)), images / "dog" / "constant.png")
    (images / "owl" / "text.png").write_text("not an image")
    blurred = np.asarray(noise(200, 8).resize((64, 64), Image.Resampling.BICUBIC), np.int16)
    for number in range(24):
        grain = np.random.default_rng(number).integers(-1, 2, blurred.shape)
        save_image(
            Image.fromarray((blurred + grain).clip(0, 255).astype(np.uint8)), images / "dog" / f"alike-{number}.png"
        )
    listed = [
        f"tiny/{file.parent.name}/{file.name},{file.parent.name},{len(file.name)},{int(file.stem) // 5}"
        for file in images.glob("[cdo]*/[0-9]*.png")
    ]
    (folder / "data/listed.csv").write_text("\n".join(["path,label,camera,patient", *sorted(listed)]) + "\n")
    others = [f"{('leaf', 'root')[number % 2]}/{number}.png" for number in range(30)]
    for number, name in enumerate(others, 500):
        save_image(noise(number), folder / "data/other" / name)
    lines = [f"other/{name},{name.partition('/')[0]}" for name in others]
    (folder / "data/other.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    sized = [f"{line},{('small', 'large')[number % 3 % 2]}" for number, line in enumerate(lines)]
    (folder / "data/sized.csv").write_text("\n".join(["path,label,size", *sized]) + "\n")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    override_params(
        [*SMALL, "ingest.channels=3", "ingest.split.val=0.3", "ingest.split.test=0.3"], folder / "params.yaml"
    )
    return folder


@pytest.fixture(scope="module")
def observed(projects: dict[str, Path], tmp_path_factory):
    """What the last of some stages leaves with some settings; each run is done once."""
    threads = torch.get_num_threads()

    @cache
    def observe(runs: str, settings: tuple[str, ...], _again: int = 0) -> dict[str, Any]:
        if runs in ("decision", "monitor"):
            return globals()[runs](settings)
        stages = runs.split()
        folder = tmp_path_factory.mktemp("run") / "w"
        shutil.copytree(projects.get(stages[0], projects["train"]), folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            seen = watch(patch)
            torch.set_num_threads(1)
            try:
                for stage in stages:
                    run(stage, load(settings))
            except UserError as error:
                return {"refused": str(error)}
            finally:
                deterministic = torch.are_deterministic_algorithms_enabled()
                torch.use_deterministic_algorithms(False)
            return seen() | {"threads": torch.get_num_threads(), "deterministic": deterministic} | left_by(stages[-1])

    yield observe
    torch.set_num_threads(threads)


def load(settings: tuple[str, ...]) -> Params:
    return check_overrides(list(settings))


def run(stage: str, params: Params) -> None:
    """Run a stage in this process, in the working folder."""
    main = importlib.import_module(f"reflux.components.stages.{stage}.__main__").main
    Path("artifacts", stage).mkdir(parents=True, exist_ok=True)
    try:
        main(Stage(stage, params))
    except UserError:
        if stage != "validate":  # it records what it refuses
            raise


def watch(patch: pytest.MonkeyPatch):
    """Watch what leaves no trace in the artifacts; returns a function that tells it."""
    patch.setattr(torch, "compile", lambda network: network)  # compiling takes a minute
    compiled = watched(patch, loop, "compiled")
    parallel = watched(patch, loop, "data_parallel")
    saves = watched(patch, loop, "save")
    opened = watched(patch, shards, "_open_images")
    labeled = watched(patch, label, "teacher_logits")
    asked = watched(patch, trainer, "teacher_outputs")

    def seen() -> dict[str, Any]:
        return {
            "compiled": len(compiled),
            "synchronized": [call["sync_batch_norm"] for call in parallel],
            "checkpoints": len(saves),
            "teacher asked": len(asked),
            "workers": [call["workers"] for call in opened],
            "largest batch": max((len(call["indices"]) for call in labeled), default=0),
        }

    return seen


def left_by(stage: str) -> dict[str, Any]:
    """The content of each artifact by name, of result.json each finding; without what time and machine decide."""
    folder = Path("artifacts", stage)
    left = {file.relative_to(folder).as_posix(): content(file) for file in folder.rglob("*") if file.is_file()}
    if stage == "validate":
        left |= {finding["name"]: finding["success"] for finding in json.loads(left["result.json"])["expectations"]}
    begun = [json.loads(path.read_text().splitlines()[0]) for path in Path(".reflux/outbox").glob("*/journal.jsonl")]
    return left | figures(folder) | {"experiment": {start["experiment"] for start in begun if start["name"] == stage}}


def content(file: Path) -> str:
    if file.suffix == ".json":
        return file.read_text()
    if file.suffix == ".parquet":
        table = pq.read_table(file)
        return str(table.drop_columns([name for name in _UNSTEADY if name in table.column_names]).to_pydict())
    return hashlib.sha256(file.read_bytes()).hexdigest()


def decision(settings: tuple[str, ...]) -> dict[str, Any]:
    """What each reason of a decision says, by gate, on a model whose figures are all 0.5, and on its champion."""
    params = check_overrides(["registry.gates={}", "registry.slices.gates={}", *settings], ROOT / "params.yaml")
    shipped = dict.fromkeys(type(params.registry.gates).model_fields, 0.5) | {"size_bytes": 512}
    figures = {"test": {"n": 1000}, "shipped": {"onnx": shipped}, "artifact_sha256": {"onnx": "a"}}
    figures["gain"] = {"accuracy": 0.5, "wins": 600, "losses": 100}
    figures["slices"] = {"class": {"cat": {"n": 40, "accuracy": 0.35}}}
    values = {"version": 1, "artifact_sha256": "b", "test_changed": False, "n": 1000, "accuracy": 0.49, "p_value": 0.2}
    values |= {"challenger_accuracy": 0.5, "difference": 0.01, "low": -0.005, "high": 0.02, "faster": 1.05}
    values |= {"size_bytes": 520, "challenger_size_bytes": 500, "latency_ms_p95": 1, "challenger_latency_ms_p95": 1}
    verdict = decide(figures, Grounds.of(params).policy, ChampionEvaluation(**values))
    return {reason.gate: reason.passed for reason in verdict.reasons}


def monitor(settings: tuple[str, ...]) -> dict[str, Any]:
    """What a check finds in images a little brighter than the champion's, after one that found nothing."""
    params = check_overrides(list(settings), ROOT / "params.yaml")
    samples = []
    for shift in (0.0, 0.04):
        statistics = {name: np.random.default_rng(0).uniform(0, 0.5, 200) + shift for name in STATISTICS}
        samples.append(Sample(("a", "b"), (8, 8, 1), np.array([50, 50]), statistics, *NO_PREDICTIONS))
    tests, _, retrain = judge(*samples, [False, True], params.monitor, params.seed)
    return {"differs": [test.differs for test in tests], "retrain": retrain}


def settings_of(name: str, row: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The settings of both runs: without the param and with it."""
    if not name.startswith(METHOD):
        return row.given, (*row.given, f"{name.replace('*', 'class')}={json.dumps(row.value)}")
    method, _, param = name.removeprefix(METHOD).partition(".")
    entry = {"name": method} | METHOD_GIVEN.get(method, {})
    entries = entry, entry | {param: row.value}
    return tuple((*row.given, f"distill.method={json.dumps(each)}") for each in entries)  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), CHANGES, ids=[f"{name}-{row.runs}" for name, row in CHANGES])
def test_a_param_changes_what_it_decides(observed, name: str, row: Row):
    before, after = (observed(row.runs, settings) for settings in settings_of(name, row))
    expected = row.differs == "refused"
    assert "refused" not in before, before
    assert ("refused" in after) == expected, after
    assert before.get(row.differs) != after.get(row.differs)
    if name in ENDS:
        assert after.get(row.differs) == ENDS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "row"),
    [(name, row) for name, row in CHANGES if name in DIRECTIONS],
    ids=[f"{name}-{row.runs}" for name, row in CHANGES if name in DIRECTIONS],
)
def test_a_param_moves_what_it_decides_in_its_direction(observed, name: str, row: Row):
    figure, more = DIRECTIONS[name]
    settings = settings_of(name, row)
    values = [observed(row.runs, each) for each in settings]
    if figure == "distance":
        section = name.partition(".")[0]
        start = observed(row.runs, (*row.given, f"{section}.lr=1e-12"))["weights"]
        values = [{figure: float(np.linalg.norm(each["weights"] - start))} for each in values]
    before, after = (each[figure] for each in values)
    assert (after > before) if more else (after < before)


@pytest.mark.slow
@pytest.mark.parametrize("runs", sorted({row.runs for _, row in CHANGES}))
def test_a_run_leaves_the_same_again(observed, runs: str):
    """Otherwise the test above would prove nothing."""
    first, again = observed(runs, ()), observed(runs, (), 1)
    for name in {row.differs for _, row in CHANGES if row.runs == runs} - {"refused"}:
        assert first.get(name) == again.get(name), name
