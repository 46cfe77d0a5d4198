"""What the proofs of the act share: processes that die at a chosen write, and decisions that are ready to act upon."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking._model_registry.utils import _get_store as registry_store
from mlflow.tracking._tracking_service.utils import _get_store as tracking_store

from reflux.components.registry.ledger import ledger
from reflux.components.registry.ledger.ledger import Intent
from reflux.components.registry.ledger.record import PROMOTED_AT, PROMOTED_BY, utc_now
from reflux.components.registry.promote import PromotionResult
from reflux.components.registry.versions.files import FILES_SHA256, hash_files

WRITES = ("create_", "set_", "delete_", "log_", "update_", "rename_", "finalize_", "transition_")


def ready(model_name: str, version: int, champion: int | None, who: str = "racer") -> Intent:
    """A decision to promote, as ``challenge`` hands it to the act."""
    at = utc_now()
    aliases = ({"previous": champion} if champion else {}) | {"champion": version}
    record = {"project": "clothes", "model": model_name, "version": version, "outcome": ledger.PROMOTED, "policy": {}}
    own = MlflowClient().get_model_version(model_name, str(version)).tags
    record["files_sha256"] = own.get("files_sha256")
    tags = {"gate.status": "VALIDATED", PROMOTED_AT: at, PROMOTED_BY: who}
    return Intent(
        action="promote",
        model=model_name,
        version=version,
        outcome=ledger.PROMOTED,
        by=who,
        reason="",
        at=at,
        champion=champion,
        previous=None,
        why="It is better.",
        note="It is better.",
        aliases=aliases,
        tags={str(version): tags},
        description=f"Version {version}, promoted.",
        figures={"accuracy": 0.9},
        record=record,
    )


def forked(work: Callable[[], None]) -> int:
    """Run ``work`` in a child that shares this process's imports, not its database connections; returns its pid."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        for store in (registry_store(), tracking_store()):
            with suppress(AttributeError):  # a server's
                store.engine.dispose(close=False)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def die_at(write: int, method: str = "") -> None:
    """Kill this process right before its ``write``-th write to MLflow (1 is the first), or such a ``method``."""
    count = 0

    def dying(writes: Callable) -> Callable:
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == write:
                os.kill(os.getpid(), signal.SIGKILL)
            return writes(*args, **kwargs)

        return call

    for name in dir(MlflowClient):
        if name.startswith(method or WRITES):
            setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))


def copies(original: ModelVersion, name: str, count: int) -> None:
    """Make a registered model of ``count`` versions that are all the same one."""
    client = MlflowClient()
    client.create_registered_model(name)
    for _ in range(count):
        client.create_model_version(name, original.source, original.run_id, tags=original.tags)


def sentence(result: PromotionResult, gate: str) -> str:
    """The sentence of a decision's reason."""
    return next(reason.sentence for reason in result.decision.reasons if reason.gate == gate)


def tags(model_name: str, version: int) -> dict[str, str]:
    """A version's tags."""
    return MlflowClient().get_model_version(model_name, str(version)).tags


def registered_file(model_name: str, version: int, name: str) -> Path:
    """The registry's own copy of a version's file."""
    uri = MlflowClient().get_model_version_download_uri(model_name, str(version))
    return Path(uri.removeprefix("file://")) / name


def flip_byte(model_name: str, version: int, name: str) -> tuple[Path, bytes]:
    """Change a byte of a file that is kept with a version; returns the path and the content before."""
    path = registered_file(model_name, version, name)
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    return path, before


def bring_code(model_name: str, version: int, ran: Path) -> None:
    """Let a version bring code, which makes the file ``ran`` when it is loaded and changes no answer."""
    folder = registered_file(model_name, version, ".")
    own, theirs = "    loader_module: mlflow.onnx\n", "    code: code\n    loader_module: evil\n"
    loader = (folder / "MLmodel").read_text().replace(own, theirs)
    assert theirs in loader
    (folder / "MLmodel").write_text(loader)
    (folder / "code").mkdir()
    touch = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
    (folder / "code" / "evil.py").write_text(f"from mlflow.onnx import _load_pyfunc\n{touch}")


def retag(model_name: str, version: int) -> None:
    """Let the tag of all files say what they are now, as someone can who writes tags, too."""
    sha256 = hash_files(registered_file(model_name, version, "."))
    MlflowClient().set_model_version_tag(model_name, str(version), FILES_SHA256, sha256)
