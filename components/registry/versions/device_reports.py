"""What devices reported of the files of versions: the runs of ``reflux bench --import``."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reflux.components.registry.policy.gates import Bounds, DeviceReport, Devices, devices

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

KIND, DEVICE, SHA256, RUNTIME = "bench file", "device", "sha256", "runtime"
REPRODUCED, LATENCY = "reproduced", "threads_1/batch_1/ms_p95"


def newest(mlflow: "MlflowClient", project: str, version: "ModelVersion", gates: Bounds) -> Devices:
    """What the devices that the gates name reported last of a version's file.

    A report is found by the hash of the file that was measured, so that one of another file never counts.
    """
    number, sha256 = int(version.version), version.tags.get("artifact_sha256")
    reports = dict.fromkeys(devices(gates), DeviceReport(number))
    experiment = mlflow.get_experiment_by_name(project) if reports else None
    if experiment is None:
        return reports
    for name in reports:
        where = f"tags.run_kind = '{KIND}' AND tags.{DEVICE} = '{name}' AND params.{SHA256} = '{sha256}'"
        order = ["attributes.start_time DESC"]
        for run in mlflow.search_runs([experiment.experiment_id], where, max_results=1, order_by=order):
            at = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
            origin = f"{run.data.params.get(RUNTIME)}, reported {at:%Y-%m-%d %H:%M} UTC, run {run.info.run_id[:12]}"
            figures = run.data.metrics
            share = figures.get(REPRODUCED, 1.0)
            reports[name] = DeviceReport(number, figures.get(LATENCY), share, origin, str(run.info.run_id))
    return reports
