"""The settings of the local stack: shared names, addresses, secrets, and their files."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from reflux.components.core.errors import UserError

INFRA = Path(__file__).parents[1]
DEFAULT_STATE = INFRA.parent / ".reflux" / "stack"
OWN_PREFIX = "REFLUX_"
USER = "reflux"
_HIGHEST_PORT = {"S3": 55_532}  # SeaweedFS's own are up to 10,003 above it
_SECRETS = (
    "POSTGRES_PASSWORD",
    "MLFLOW_DB_PASSWORD",
    "PREFECT_DB_PASSWORD",
    "TUNE_DB_PASSWORD",
    "MLFLOW_ADMIN_PASSWORD",
    "MLFLOW_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "PREFECT_PASSWORD",
    "S3_ADMIN_SECRET_KEY",
    "S3_MLFLOW_SECRET_KEY",
    "S3_SECRET_KEY",
)


@dataclass(frozen=True)
class Stack:
    """A local stack's folder and settings.

    Attributes:
        state: the folder of its data, logs and secrets.
        settings: ``infra/settings.env``, where the environment had no other value.
        secrets: passwords and keys by name.
    """

    state: Path
    settings: dict[str, str]
    secrets: dict[str, str]

    @property
    def host(self) -> str:
        """The address that the servers listen on."""
        return self.settings["REFLUX_HOST"]

    def port(self, part: str) -> int:
        """The port of ``POSTGRES``, ``S3``, ``MLFLOW`` or ``PREFECT``.

        Raises:
            UserError: it is set to what is no port.
        """
        name = f"REFLUX_{part}_PORT"
        text, highest = self.settings[name], _HIGHEST_PORT.get(part, 65_535)
        if not (text.isdecimal() and 1 <= int(text) <= highest):
            raise UserError(f"{name} = {text} is no port: set it to a number from 1 to {highest}.")
        return int(text)

    def url(self, part: str) -> str:
        """The address of ``S3``, ``MLFLOW`` or ``PREFECT``."""
        return f"http://{self.host}:{self.port(part)}"

    @property
    def studies(self) -> str:
        """The name of the database for the studies of ``reflux tune``; empty for none."""
        name = self.settings["REFLUX_TUNE_DATABASE"]
        return "" if name == "none" else name

    @property
    def plain(self) -> dict[str, str]:
        """The settings that the tools themselves read."""
        return {key: value for key, value in self.settings.items() if not key.startswith(OWN_PREFIX)}

    @property
    def client(self) -> dict[str, str]:
        """The environment of the stack's clients: a person's shell, a worker."""
        studies = {}
        if self.studies:
            server = f"{self.secrets['TUNE_DB_PASSWORD']}@{self.host}:{self.port('POSTGRES')}"
            studies = {"REFLUX_TUNE_STORAGE": f"postgresql://tune:{server}/{self.studies}"}
        return {
            **self.settings,
            **studies,
            "MLFLOW_TRACKING_URI": self.url("MLFLOW"),
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.secrets["MLFLOW_PASSWORD"],
            "PREFECT_API_URL": f"{self.url('PREFECT')}/api",
            "PREFECT_API_AUTH_STRING": f"{USER}:{self.secrets['PREFECT_PASSWORD']}",
            "AWS_ENDPOINT_URL_S3": self.url("S3"),
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": self.secrets["S3_SECRET_KEY"],
        }

    @property
    def client_file(self) -> Path:
        """The file with ``client``, for ``set -a; . FILE``."""
        return self.state / "stack.env"


def read_env(path: Path) -> dict[str, str]:
    """Read ``KEY=value`` lines; comments and empty lines are skipped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def write_env(path: Path, values: dict[str, str]) -> None:
    """Write ``KEY=value`` lines, for the owner alone."""
    write_private(path, "".join(f"{key}={value}\n" for key, value in values.items()))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def new_stack(state: Path) -> Stack:
    """Prepare the folder of a stack: names from the environment, chosen before, or from ``infra/settings.env``.

    Secrets are made once and kept, because the databases remember them.

    Raises:
        UserError: a port is none. The settings that were chosen before stay.
    """
    shared = read_env(INFRA / "settings.env")
    chosen = read_env(state / "settings.env") if (state / "settings.env").is_file() else {}
    chosen |= {key: os.environ[key] for key in shared if key.startswith(OWN_PREFIX) and os.environ.get(key)}
    state.mkdir(parents=True, exist_ok=True, mode=0o711)
    state.chmod(0o711)  # Postgres may run as another user and must pass through; everything inside is the owner's alone
    for folder in ("log", "s3", "prefect", "worker"):
        (state / folder).mkdir(exist_ok=True, mode=0o700)
    secrets_file = state / "servers.env"
    known = read_env(secrets_file) if secrets_file.is_file() else {}
    stack = Stack(state, shared | chosen, {name: known.get(name) or secrets.token_hex(24) for name in _SECRETS})
    client = stack.client
    if known != stack.secrets:
        write_env(secrets_file, stack.secrets)
    write_env(state / "settings.env", chosen)
    write_env(stack.client_file, client)
    return stack


def known_stack(state: Path) -> Stack:
    """Read the stack as it was last started.

    Raises:
        UserError: there is none.
    """
    try:
        settings = read_env(INFRA / "settings.env") | read_env(state / "settings.env")
        return Stack(state, settings, read_env(state / "servers.env"))
    except FileNotFoundError:
        raise UserError(f"There is no stack in {state}: infra/local/up starts one.") from None
