"""A whole evaluation of a tiny real model, whose answer to each test image is chosen.

Test image i is black but for pixel i, and the network is a table of logits by pixel: a real ONNX file with any
accuracy and any disagreement with another one.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mlflow import MlflowClient
from onnx import TensorProto, helper, numpy_helper
from sqlalchemy import create_engine, text

from reflux.components.core.artifacts import sha256_file, write_json
from reflux.components.core.params.registry import Registry
from reflux.components.core.runtime import tracking
from reflux.components.modalities.image.models import pixel_model
from reflux.components.registry import client, promote, rollback
from reflux.components.registry.ledger import ledger
from reflux.components.registry.ledger.record import Grounds
from reflux.components.registry.policy.decision import Policy
from reflux.components.registry.policy.gates import Reason
from reflux.components.registry.promote import PromotionResult, challenge
from reflux.components.registry.register import register
from reflux.components.registry.versions import sbom
from reflux.components.registry.versions.evaluated_run import Lineage
from reflux.components.registry.versions.signatures import SIGNING_KEY
from tests.hub import TOKEN, Hub
from tests.servers import has_postgres, postgres

CLASSES = ("boot", "dress", "shirt")
SIDE = 16
N = 200
GATES = {"accuracy": {"min": 0.8}, "worst_class_recall": {"min": 0.5}, "size_kb": {"max": 200.0}}
LENIENT = {"margin": 0.03}  # 200 test images can't show less
LABELS = np.arange(N) % len(CLASSES)


def table_network(path: Path, predicted: np.ndarray, side: int = SIDE, channels: int = 1, ballast: int = 0) -> Path:
    """Write an ONNX file uint8 [N, C, side, side] -> logits whose prediction for test image i is ``predicted[i]``.

    ``ballast`` is bytes of which the network makes no use.
    """
    weights = np.zeros((channels * side * side, len(CLASSES)), np.float32)
    weights[np.arange(len(predicted)), predicted] = 4 / 255
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", channels, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [numpy_helper.from_array(weights, "weights")],
        doc_string="-" * ballast,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def predictions(right: int, wrong_from: int = 0) -> np.ndarray:
    """Predictions for the test images, all right but ``N - right`` of them, beginning with image ``wrong_from``."""
    given = LABELS.copy()
    rows = np.arange(wrong_from, wrong_from + N - right) % N
    given[rows] = (given[rows] + 1) % len(CLASSES)
    return given


def figures(given: np.ndarray, size_bytes: int) -> dict[str, float]:
    recalls = [(given[label == LABELS] == label).mean() for label in range(len(CLASSES))]
    return {
        "accuracy": float((given == LABELS).mean()),
        "worst_class_recall": float(min(recalls)),
        "params": SIDE * SIDE * len(CLASSES),
        "size_bytes": size_bytes,
        "latency_ms_p50": 0.05,
        "latency_ms_p95": 0.08,
    }


def corrupted(accuracy: float) -> dict[str, float]:
    return {f"{kind}_accuracy": 0.9 * accuracy for kind in ("noise", "blur", "brightness", "jpeg", "corrupted")}


def slices(given: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    """Of each class, and of the images that two cameras took in turn."""
    right, camera = given == LABELS, np.arange(N) // len(CLASSES) % 2
    parts = {"class": (CLASSES, LABELS), "camera": (("left", "right"), camera)}
    return {
        column: {
            name: {"n": int((values == i).sum()), "accuracy": float(right[values == i].mean())}
            for i, name in enumerate(names)
        }
        for column, (names, values) in parts.items()
    }


def write_probe(path: Path, network: Path, images: np.ndarray) -> None:
    """Up to 64 images [N, H, W, C] with the network's predictions."""
    pixels = np.ascontiguousarray(images[:64].transpose(0, 3, 1, 2))
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    predicted = session.run(["logits"], {"pixels": pixels})[0].argmax(axis=1).astype(np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, pixels=pixels, predicted=predicted)


def safetensors(path: Path, name: str, image_size: int, seed: int) -> None:
    torch.manual_seed(seed)
    pixel_model.save(pixel_model.pixel_model(name, CLASSES, image_size, 1, (0.5,), (0.25,)), path)


def write_evaluation(
    folder: Path, given: np.ndarray, fingerprint: str, salt: str, ballast: int = 0, trained_on: Sequence[int] = (N,)
) -> Path:
    """Everything the registry reads, as ingest, finetune, distill, compress and evaluate leave it.

    The ids of the test images are their rows; ``trained_on`` are those of the images that the student was made from.
    """
    shards = folder / "ingest" / "shards" / "test"
    shards.mkdir(parents=True, exist_ok=True)
    images = np.zeros((N, SIDE * SIDE), np.uint8)
    images[np.arange(N), np.arange(N)] = 255
    images = images.reshape(N, SIDE, SIDE, 1)
    np.save(shards / "images.npy", images)
    np.save(shards / "labels.npy", LABELS.astype(np.int64))
    np.save(shards / "ids.npy", np.arange(N, dtype=np.uint64))
    dataset = {"name": "clothes", "source": "data/clothes", "classes": list(CLASSES), "image_size": SIDE, "channels": 1}
    dataset |= {"mean": [0.1], "std": [0.1], "counts": {"test": N}, "fingerprints": {"test": fingerprint}}
    write_json(folder / "ingest" / "dataset.json", dataset)
    write_json(folder / "ingest" / "croissant.json", {"name": "clothes"})
    for stage, name in (("finetune", "resnet8"), ("distill", "resnet8")):
        path = folder / stage / "model.safetensors"
        if not path.exists():
            safetensors(path, name, SIDE, seed=0)
    path = table_network(folder / "compress" / "student.onnx", given, ballast=ballast)
    probe = folder / "evaluate" / "probe.npz"
    write_probe(probe, path, images)
    np.save(folder / "evaluate" / "trained-on.npy", np.array(trained_on, np.uint64))
    measured = figures(given, path.stat().st_size)
    control = figures(predictions(N - 60), 1000)
    metrics = {
        "test": {"fingerprint": fingerprint, "n": N},
        "teacher": figures(predictions(N - 10), 1000),
        "control": control | corrupted(control["accuracy"]),
        "student": measured,
        "shipped": {"onnx": measured | corrupted(measured["accuracy"])},
        "slices": slices(given),
        "artifact_sha256": {"onnx": sha256_file(path)},
        "probe_sha256": sha256_file(probe),
        "trained_on_sha256": sha256_file(folder / "evaluate" / "trained-on.npy"),
        "classes": list(CLASSES),
        "salt": salt,
    }
    write_json(folder / "evaluate" / "metrics.json", metrics)
    (folder / "evaluate" / "model-card.html").write_text("<h1>The card</h1>")
    (folder / "evaluate" / "model-card.md").write_text("---\nlicense: mit\n---\n\n# The card\n")
    return folder


@dataclass
class Home:
    """A working folder with MLflow, one pipeline run in it, and evaluations on demand."""

    folder: Path
    experiment: str
    run_id: str
    database: str  # its URI
    salt: str = ""  # keeps one test's evaluations apart from another's

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    def sql(self, statement: str, **values: str | int) -> list[tuple[object, ...]]:
        """Run a statement in MLflow's database, for what its API has no call for; returns its rows."""
        engine = create_engine(self.database)
        with engine.begin() as connection:
            done = connection.execute(text(statement), values)
            rows = [tuple(row) for row in done] if done.returns_rows else []
        engine.dispose()
        return rows

    def evaluation(
        self,
        right: int,
        wrong_from: int = 0,
        fingerprint: str = "f" * 64,
        ballast: int = 0,
        trained_on: Sequence[int] = (N,),
    ) -> Path:
        given = predictions(right, wrong_from)
        return write_evaluation(self.artifacts, given, fingerprint, self.salt, ballast, trained_on)

    def lineage(self, **changes: str | None) -> Lineage:
        values = {"run_id": self.run_id, "params_sha256": "a" * 64, "data_md5": "b" * 32 + ".dir", "git_sha": "c" * 40}
        return Lineage(**(values | {"flow_run_id": "flow-1"} | changes))


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The library reads the environment once. Without Xet large files go over Git LFS, which the server speaks.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True, raising=False)
    yield server
    server.close()


@pytest.fixture(scope="session")
def registry_databases(tmp_path_factory, mlflow_template) -> Iterator[Callable[[str], tuple[Path, str]]]:
    """A working folder and the URI of MLflow's database in it, by the kind of database."""
    with ExitStack() as stack:

        @cache
        def made(kind: str) -> tuple[Path, str]:
            folder = tmp_path_factory.mktemp(f"registry-{kind}")
            if kind == "postgres":
                if not has_postgres():
                    pytest.skip("NO POSTGRES: install Debian's postgresql")
                return folder, stack.enter_context(postgres())
            shutil.copy(mlflow_template, folder / "mlflow.db")
            return folder, f"sqlite:///{folder}/mlflow.db"

        yield made


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def home(registry_databases, request) -> Iterator[Home]:
    """One MLflow database and teacher for all of these tests; each takes its own registered model.

    SQLite forgives what Postgres refuses, lengths and locks among it: what holds on one must hold on the other.
    """
    folder, database = registry_databases(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", database)
        mlflow = tracking.client()
        # Made before a server on this database makes it, as it would then keep its files behind the server.
        tracking.experiment_id(mlflow, ledger.experiment("clothes"))
        run = mlflow.create_run(tracking.experiment_id(mlflow, "clothes"), run_name="retrain")
        yield Home(folder, "clothes", run.info.run_id, database)


@pytest.fixture
def model_name(home) -> str:
    home.salt = f"clothes-{next(_NUMBERS)}"
    return home.salt


_NUMBERS = itertools.count(1)


@pytest.fixture(params=["without keys", "with keys"])
def keys(request, monkeypatch) -> None:
    """Asked for by a test of what holds whether versions and decisions are signed or not."""
    if request.param == "with keys":
        pytest.importorskip("model_signing")
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        monkeypatch.setenv(SIGNING_KEY, pem.decode())


@pytest.fixture
def smoke_tested() -> None:
    """Asked for by a test whose promotions are to be smoke-tested for real."""


@pytest.fixture(autouse=True)
def _without_smoke_test(request, monkeypatch):
    """Leave out the smoke test: it takes a second or two per promotion, and versions/test_smoke.py tests it."""
    if "smoke_tested" not in request.fixturenames:
        passed = Reason("smoke", "max", None, 0.1, True, "The smoke test was left out.")
        for module in (promote, rollback):
            monkeypatch.setattr(module, "smoke", SimpleNamespace(check=lambda *_: passed))


@pytest.fixture
def with_bill() -> None:
    """Asked for by a test whose versions are to have a bill of materials."""


@pytest.fixture(autouse=True)
def _without_bill(request, monkeypatch):
    """Leave out the bill of materials: it takes a fifth of a second each, and versions/test_sbom.py tests it."""
    if "with_bill" not in request.fixturenames:
        monkeypatch.setattr(sbom, "find_spec", lambda _: None)


@pytest.fixture
def original(home, model_name):
    """A registered version that passes its gates, for models that hold copies of it."""
    register(home.evaluation(right=180), model_name, home.experiment, home.lineage())
    return MlflowClient().get_model_version(model_name, "1")


@pytest.fixture(scope="session")
def make_grounds() -> Callable[..., Grounds]:
    """Grounds of a decision with these gates, and the default champion rule except for what is named."""

    def make(gates: dict[str, dict[str, float]], approval: str = "auto", **rule: float) -> Grounds:
        policy = Policy.of(Registry.model_validate({"model_name": "any", "gates": gates}))
        return Grounds(replace(policy, **rule), resamples=500, seed=0, approval=approval)

    return make


@pytest.fixture
def registered(home, model_name) -> Callable[..., int]:
    """Make, evaluate and register a student that classifies ``right`` test images correctly; returns its version."""

    def make(right: int, wrong_from: int = 0, ballast: int = 0) -> int:
        artifacts = home.evaluation(right, wrong_from, ballast=ballast)
        return register(artifacts, model_name, home.experiment, home.lineage()).version

    return make


@pytest.fixture
def judge(home, model_name, make_grounds) -> Callable[..., PromotionResult]:
    """Decide on a version of the test's model, by default with ``GATES`` and a lenient margin."""

    def run(version: int, gates=GATES, rule=LENIENT, approval="auto", **others) -> PromotionResult:
        grounds = make_grounds(gates, approval, **rule)
        return challenge(home.artifacts, home.experiment, model_name, version, grounds, **others)

    return run


@pytest.fixture
def aliases(model_name) -> Callable[[], dict[str, int]]:
    """The present aliases of the test's model."""
    return lambda: client.aliases(MlflowClient(), model_name)


@pytest.fixture
def champion(model_name, registered, judge) -> str:
    """The URI of a champion that classifies every test image correctly."""
    assert judge(registered(right=N)).promoted
    return f"models:/{model_name}@champion"


@pytest.fixture
def write_table_network() -> Callable[..., Path]:
    return table_network


@pytest.fixture
def write_network() -> Callable[..., None]:
    return safetensors
