"""LoggedModels of the student's shipped file and of its teacher, with signature, input example and figures."""

import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from reflux.components.core.artifacts import finite, read_json, sha256_file, write_json
from reflux.components.core.contract import shipped
from reflux.components.core.errors import UserError
from reflux.components.core.export.network import MODULES, Network, code_of, load
from reflux.components.modalities.image import preprocess
from reflux.components.registry.client import if_exists
from reflux.components.registry.versions import sbom, signatures
from reflux.components.registry.versions.evaluated_run import STAGE_RUNS, EvaluatedRun
from reflux.components.registry.versions.files import EVALUATION, FILES_SHA256, METADATA_KEY, hash_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import Model, ModelSignature

    from reflux.components.modalities.image.models.pixel_model import PixelModel

STUDENT, TEACHER = "student", "teacher"
LOGGED = "models:/"  # MLflow on SQLite drops a version's model_id, but keeps its source

_DIGEST_CHARACTERS = 36  # MLflow's limit


def student(
    mlflow: "MlflowClient",
    evaluated: EvaluatedRun,
    experiment: str,
    run_id: str,
    teacher_id: str,
    tags: dict[str, str],
) -> str:
    """Log the shipped file as a LoggedModel of the pipeline's parent run; returns its id.

    If an earlier attempt finished it, it is that one.

    Raises:
        UserError: the file does not predict the same through MLflow as in its runtime.
    """
    from mlflow.entities import LoggedModelInput

    finished = _finished(mlflow, experiment, STUDENT, "lineage.key", evaluated.lineage_key)
    if finished and _holds(mlflow, finished):
        return finished
    network = load(evaluated.file)
    names = architectures(evaluated)
    metadata = {
        "file": f"model{evaluated.file.suffix}",
        "classes": evaluated.dataset["classes"],
        "channels": network.channels,
        "image_size": network.image_size,
        "stored_size": evaluated.dataset["image_size"],
        "stored_channels": evaluated.dataset["channels"],
        "artifact_sha256": evaluated.sha256,
        "test_fingerprint": evaluated.metrics["test"]["fingerprint"],
        **names,
    }
    params = {"network": names["student"], "teacher": names["teacher"], "teacher_model_id": teacher_id}
    params |= {"image_size": str(network.image_size), "channels": str(network.channels)}

    def write(model: "Model", folder: Path) -> None:
        model.metadata = {METADATA_KEY: metadata}
        _write_student(model, folder, evaluated, network)
        _prove(folder, network)
        served_by = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
        sbom.write(folder / sbom.SBOM, names["student"], evaluated.sha256, served_by, evaluated.artifacts, tags)
        signatures.sign(folder)  # last: it is of all the files

    mlflow.log_inputs(run_id, models=[LoggedModelInput(teacher_id)])
    figures = partial(_figures, mlflow, run_id, evaluated, shipped(evaluated.metrics))
    key = {"lineage.key": evaluated.lineage_key}
    return _log(mlflow, experiment, run_id, STUDENT, tags | key, params, write, figures)


def teacher(mlflow: "MlflowClient", evaluated: EvaluatedRun, experiment: str, run_id: str) -> str:
    """Log the teacher as a LoggedModel, once for its weights; returns its id.

    It belongs to the run that fine-tuned it, or to ``run_id`` if the server does not know that run.
    """
    sha256 = sha256_file(evaluated.teacher)
    if finished := _finished(mlflow, experiment, TEACHER, "weights.sha256", sha256):
        return finished
    # Torch and timm take seconds to import, which a registered teacher does not need.
    from reflux.components.modalities.image.models import pixel_model

    model = pixel_model.load(evaluated.teacher)
    origin = run_of(mlflow, evaluated.artifacts / "finetune" / "run.json") or run_id
    params = {"network": model.spec.name, "image_size": str(model.spec.image_size)}
    params["params"] = str(pixel_model.parameter_count(model))

    def write(logged: "Model", folder: Path) -> None:
        logged.metadata = {METADATA_KEY: {"classes": list(model.spec.classes), "teacher": model.spec.name}}
        _write_teacher(logged, folder, evaluated, model)

    figures = partial(_figures, mlflow, origin, evaluated, evaluated.metrics["teacher"])
    tags = {key: value for key, value in evaluated.origin().items() if key.startswith("pretrained.")}
    return _log(mlflow, experiment, origin, TEACHER, tags | {"weights.sha256": sha256}, params, write, figures)


def architectures(evaluated: EvaluatedRun) -> dict[str, str]:
    """The names of the student's and the teacher's networks.

    Raises:
        UserError: Reflux did not write their weights.
    """
    from reflux.components.modalities.image.models import pixel_model

    spec, _ = pixel_model.read(evaluated.teacher)
    student_spec, _ = pixel_model.read(evaluated.artifacts / "distill" / "model.safetensors")
    if spec is None or student_spec is None:
        raise UserError(f"{evaluated.artifacts} holds weights that Reflux did not write: run `reflux run`.")
    return {"student": student_spec.label, "teacher": spec.name}


def _finished(mlflow: "MlflowClient", experiment: str, name: str, key: str, value: str) -> str | None:
    """A complete model with this tag; marks as failed what killed attempts, also on others, left incomplete."""
    for model in mlflow.search_logged_models([experiment], f"name = '{name}'"):  # the newest; none finds a status
        if model.status == "PENDING":
            mlflow.finalize_logged_model(model.model_id, "FAILED")
    matches = mlflow.search_logged_models([experiment], f"name = '{name}' AND tags.`{key}` = '{value}'")
    return next((str(model.model_id) for model in matches if model.status == "READY"), None)


def _holds(client: "MlflowClient", model_id: str) -> bool:
    """Tell whether a LoggedModel still has the files that it was logged with."""
    import mlflow

    expected = client.get_logged_model(model_id).tags.get(FILES_SHA256)
    with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
        try:
            mlflow.artifacts.download_artifacts(f"models:/{model_id}", dst_path=temporary)
        except OSError:
            return False
        return hash_files(Path(temporary)) == expected


def _log(
    mlflow: "MlflowClient",
    experiment: str,
    run_id: str,
    name: str,
    tags: dict[str, str],
    params: dict[str, str],
    write: Callable[["Model", Path], None],
    figures: Callable[[str], None],
) -> str:
    """Log the folder that ``write`` fills; the LoggedModel is READY only when it is complete, with its figures."""
    from mlflow.models import Model

    logged = mlflow.create_logged_model(experiment, name, run_id, tags, params)
    model_id = str(logged.model_id)
    try:
        with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
            folder = Path(temporary) / "model"
            write(Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=model_id), folder)
            mlflow.set_logged_model_tags(model_id, {FILES_SHA256: hash_files(folder)})
            mlflow.log_model_artifacts(model_id, str(folder))
        _log_output(mlflow, run_id, model_id)
        figures(model_id)
    except BaseException:
        mlflow.finalize_logged_model(model_id, "FAILED")
        raise
    mlflow.finalize_logged_model(model_id, "READY")
    return model_id


def _log_output(mlflow: "MlflowClient", run_id: str, model_id: str) -> None:
    """Note a model as an output of a run; MLflow refuses a request that its client repeats after a lost answer."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    try:
        mlflow.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    except MlflowException:
        outputs = mlflow.get_run(run_id).outputs
        if outputs is None or model_id not in {output.model_id for output in outputs.model_outputs}:
            raise


def _write_student(model: "Model", folder: Path, evaluated: EvaluatedRun, network: Network) -> None:
    side, channels, classes = network.image_size, network.channels, len(evaluated.dataset["classes"])
    requirements = _pinned(*MODULES[evaluated.file.suffix].REQUIREMENTS)
    facts = {
        "mlflow_model": model,
        "signature": _signature(channels, side, classes, output="logits"),
        "input_example": np.zeros((2, channels, side, side), np.uint8),
        "pip_requirements": requirements,
        "metadata": model.metadata,
    }
    file = folder / f"model{evaluated.file.suffix}"
    if file.suffix == ".onnx":
        import mlflow.onnx
        import onnx

        facts["pip_requirements"] = [*requirements, *_pinned("onnx")]  # MLflow's flavor checks the file with it
        proto, providers = onnx.load(evaluated.file), ["CPUExecutionProvider"]
        mlflow.onnx.save_model(proto, folder, onnx_execution_providers=providers, save_as_external_data=False, **facts)
    else:
        import mlflow.pyfunc

        with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
            own = code_of(file.suffix)
            code = Path(shutil.copyfile(own, Path(temporary, f"reflux_{own.name}")))
            mlflow.pyfunc.save_model(folder, loader_module=code.stem, code_paths=[str(code)], **facts)
    # The registered file is the evaluated one to the byte, not one that another protobuf has written anew.
    shutil.copyfile(evaluated.file, file)
    shutil.copyfile(str(preprocess.__file__), folder / "preprocess.py")
    for path in evaluated.evaluation:
        (folder / EVALUATION).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / EVALUATION / path.name)
    write_json(folder / EVALUATION / STAGE_RUNS, evaluated.stage_runs)


def _prove(folder: Path, network: Network) -> None:
    """Refuse to log a folder whose pyfunc does not predict like the network, for one image and for several."""
    import mlflow.pyfunc

    served = mlflow.pyfunc.load_model(str(folder))
    shape = (3, network.image_size, network.image_size, network.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for count in (1, 3):
        pixels = np.ascontiguousarray(images[:count].transpose(0, 3, 1, 2))
        logits = served.predict(pixels)["logits"]
        if not np.allclose(logits, network.logits(images[:count]), atol=1e-4):
            raise UserError("The file predicts differently through MLflow's pyfunc: it is not registered.")


def _write_teacher(logged: "Model", folder: Path, evaluated: EvaluatedRun, model: "PixelModel") -> None:
    flavor = _pytorch_flavor()
    side, channels = evaluated.dataset["image_size"], evaluated.dataset["channels"]
    # torch.export fixes a dimension of size one, so the example has two images.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about weights that are not on the CPU; these are
        flavor.save_model(
            model.eval().cpu(),
            folder,
            mlflow_model=logged,
            signature=_signature(channels, side, len(model.spec.classes), output=None),
            input_example=np.zeros((2, channels, side, side), np.uint8),
            pip_requirements=_pinned("numpy", "torch"),
            metadata=logged.metadata,
            serialization_format="pt2",
        )


def _pytorch_flavor() -> ModuleType:
    """``mlflow.pytorch``, which would take four seconds longer where lightly has brought pytorch-lightning."""
    lightning = "pytorch_lightning"
    hidden = lightning not in sys.modules
    if hidden:
        sys.modules[lightning] = None  # type: ignore[assignment]  # so that it can't be imported
    try:
        return import_module("mlflow.pytorch")
    finally:
        if hidden:
            del sys.modules[lightning]


def _signature(channels: int, side: int, classes: int, output: str | None) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    pixels = TensorSpec(np.dtype(np.uint8), (-1, channels, side, side))
    return ModelSignature(Schema([pixels]), Schema([TensorSpec(np.dtype(np.float32), (-1, classes), output)]))


def _pinned(*packages: str) -> list[str]:
    # No package index has a local build such as 2.13.0+cpu.
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


def _figures(
    mlflow: "MlflowClient", run_id: str, evaluated: EvaluatedRun, measured: dict[str, float], model_id: str
) -> None:
    """Log a model's figures, with the test split that they were measured on."""
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag, Metric

    name = f"{evaluated.dataset['name']}/test"
    digest = evaluated.metrics["test"]["fingerprint"][:_DIGEST_CHARACTERS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that two equal resolvers match a path
        source = resolve_dataset_source(str(evaluated.dataset["source"]))
    entity = MetaDataset(source, name=name, digest=digest)._to_mlflow_entity()  # type: ignore[abstract]
    mlflow.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "test")])])
    now, values = int(time.time() * 1000), finite(measured).items()
    figures = [Metric(f"test/{key}", value, now, 0, model_id, name, digest, run_id) for key, value in values]
    mlflow.log_batch(run_id, metrics=figures)


def run_of(mlflow: "MlflowClient", run_file: Path) -> str | None:
    """The run that made a stage's artifacts, if this server has it."""
    run_id = read_json(run_file).get("mlflow_run_id") if run_file.is_file() else None
    return run_id if run_id and if_exists(mlflow.get_run, run_id) else None
