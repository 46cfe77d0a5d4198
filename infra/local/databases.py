"""Postgres for the local stack: its folder, its databases and their owners."""

import os
import shutil
import subprocess
from pathlib import Path

from infra.local.settings import Stack, write_private
from reflux.components.core.errors import UserError

HOST = "127.0.0.1"  # but for the studies of `reflux tune`, only the stack's own servers need it
NOBODY = 65534
_OURS = "  # infra/local\n"
_DEBIAN = "/usr/lib/postgresql"


def folder(stack: Stack) -> Path:
    """The folder that Postgres may write."""
    return stack.state / "postgres"


def hosts(stack: Stack) -> list[str]:
    """The addresses that Postgres listens on: workers on other machines reach the studies of `reflux tune` there."""
    return [HOST, stack.host] if stack.studies and stack.host != HOST else [HOST]


def program(name: str) -> Path:
    """One of Postgres's programs; Debian keeps them out of the PATH.

    Raises:
        UserError: it is not installed.
    """
    newest = sorted(Path(_DEBIAN).glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    initdb = shutil.which("initdb")
    sibling = Path(initdb).resolve().with_name(name) if initdb else None
    for path in (sibling, *newest[-1:]):
        if path and path.is_file():
            return path
    raise UserError(f"Postgres's {name} is missing: install Postgres 14 or newer (Debian: apt install postgresql).")


def as_unprivileged() -> list[str]:
    """The words before one of Postgres's commands that drop root's rights: it refuses to run as root."""
    if os.getuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def initialize(stack: Stack) -> None:
    """Make the database cluster, unless it exists.

    Raises:
        UserError: the folder is out of reach for the user that Postgres runs as, or initdb failed.
    """
    home = folder(stack)
    home.mkdir(exist_ok=True, mode=0o700)
    if os.getuid() == 0:
        os.chown(home, NOBODY, NOBODY)
        if subprocess.run([*as_unprivileged(), "test", "-w", str(home)], check=False).returncode != 0:
            raise UserError(
                f"Postgres refuses root, so it runs as nobody, who can't enter {home}: choose a folder that others may "
                "pass through: infra/local/up --state /var/lib/reflux."
            )
    if not (home / "data" / "PG_VERSION").is_file():
        _make(stack, home)
    _let_in(stack, home / "data" / "pg_hba.conf")


def _make(stack: Stack, home: Path) -> None:
    shutil.rmtree(home / "data", ignore_errors=True)  # an initdb that was interrupted
    password = home / "password"
    write_private(password, stack.secrets["POSTGRES_PASSWORD"])
    try:
        if os.getuid() == 0:
            os.chown(password, NOBODY, NOBODY)
        options = ["-D", str(home / "data"), "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={password}"]
        command = [*as_unprivileged(), str(program("initdb")), *options, "-E", "UTF8", "--locale=C"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    finally:
        password.unlink()
    if done.returncode != 0:
        raise UserError(f"initdb failed in {home}: {done.stderr.strip().splitlines()[-1]}")


def _let_in(stack: Stack, rules: Path) -> None:
    """Let other machines reach the studies, and no other database."""
    text = rules.read_text(encoding="utf-8")
    new = "".join(line for line in text.splitlines(keepends=True) if not line.endswith(_OURS))
    new += f"host {stack.studies} tune all scram-sha-256{_OURS}" if len(hosts(stack)) > 1 else ""
    if new != text:
        rules.write_text(new, encoding="utf-8")


def is_up(stack: Stack) -> bool:
    """Whether Postgres takes commands."""
    import psycopg2

    try:
        psycopg2.connect(dbname="postgres", connect_timeout=5, **_superuser(stack)).close()
    except psycopg2.OperationalError:
        return False
    return True


def make_databases(stack: Stack) -> None:
    """Make the roles, with their present passwords, and the databases that they own. Safe to repeat."""
    import psycopg2
    from psycopg2 import sql

    owners = {"MLFLOW": "mlflow", "MLFLOW_AUTH": "mlflow", "PREFECT": "prefect"}
    names = {stack.settings[f"REFLUX_{key}_DATABASE"]: owner for key, owner in owners.items()}
    if stack.studies:
        names[stack.studies] = "tune"
    connection = psycopg2.connect(dbname="postgres", **_superuser(stack))
    connection.autocommit = True  # a database can't be made in a transaction
    try:
        with connection.cursor() as run:
            for role in dict.fromkeys(names.values()):
                run.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
                verb = "ALTER" if run.fetchone() else "CREATE"
                statement = sql.SQL(verb + " ROLE {} LOGIN PASSWORD {}")
                secret = sql.Literal(login(stack, role)["PGPASSWORD"])
                run.execute(statement.format(sql.Identifier(role), secret))
            for name, role in names.items():
                run.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
                if not run.fetchone():
                    statement = sql.SQL("CREATE DATABASE {} OWNER {}")
                    run.execute(statement.format(sql.Identifier(name), sql.Identifier(role)))
                    run.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    finally:
        connection.close()


def login(stack: Stack, role: str) -> dict[str, str]:
    """The variables with which libpq logs a server in as its role."""
    return {
        "PGHOST": HOST,
        "PGPORT": str(stack.port("POSTGRES")),
        "PGUSER": role,
        "PGPASSWORD": stack.secrets[f"{role.upper()}_DB_PASSWORD"],
    }


def _superuser(stack: Stack) -> dict[str, str]:
    password = stack.secrets["POSTGRES_PASSWORD"]
    return {"host": HOST, "port": str(stack.port("POSTGRES")), "user": "postgres", "password": password}
