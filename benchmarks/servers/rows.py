"""Long histories without the weeks: rows of real runs and versions, copied in MLflow's own Postgres."""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg2

from infra.local.databases import HOST
from infra.local.settings import Stack

_SECONDS_BETWEEN_RUNS = 60


def connect(stack: Stack, database: str) -> Any:
    """A connection to one of the stack's databases, as its superuser."""
    login = {"host": HOST, "port": stack.port("POSTGRES"), "user": "postgres"}
    connection = psycopg2.connect(dbname=database, password=stack.secrets["POSTGRES_PASSWORD"], **login)
    connection.autocommit = True
    return connection


def copy_runs(cursor: Any, runs: Sequence[str], copies: tuple[int, int]) -> None:
    """Copy runs with their metrics, params and tags; each copy is a minute older than the one before.

    Args:
        cursor: in MLflow's database.
        runs: their ids.
        copies: the first number, and the one after the last.
    """
    older = f"- n * {1000 * _SECONDS_BETWEEN_RUNS}"
    other = {"run_uuid": _other("run_uuid")}
    _copy(cursor, "runs", runs, other | {name: f"{name} {older}" for name in ("start_time", "end_time")}, copies)
    for table in ("metrics", "latest_metrics", "params"):
        _copy(cursor, table, runs, other, copies)
    parent = f"CASE WHEN key = 'mlflow.parentRunId' THEN {_other('value')} ELSE value END"
    _copy(cursor, "tags", runs, other | {"value": parent}, copies)


def copy_version(cursor: Any, model: str, versions: tuple[int, int]) -> None:
    """Copy version 1 of a model, with its tags.

    Args:
        cursor: in MLflow's database.
        model: its name.
        versions: the first number, and the one after the last.
    """
    for table in ("model_versions", "model_version_tags"):
        columns = _columns(cursor, table)
        values = ", ".join("n" if column == "version" else column for column in columns)
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, generate_series(%s, %s) AS n "  # noqa: S608
            "WHERE name = %s AND version = 1",
            (versions[0], versions[1] - 1, model),
        )


def inserted(cursor: Any) -> int:
    """Rows that were ever inserted into the database; Postgres counts them a little late."""
    cursor.execute("SELECT pg_stat_force_next_flush(), sum(n_tup_ins) FROM pg_stat_user_tables")
    return int(cursor.fetchone()[1])


def size(cursor: Any) -> int:
    """Bytes of the database on disk, with its indexes and rows that are not vacuumed yet."""
    cursor.execute("SELECT pg_database_size(current_database())")
    return int(cursor.fetchone()[0])


def _copy(cursor: Any, table: str, runs: Sequence[str], changed: Mapping[str, str], copies: tuple[int, int]) -> None:
    columns = _columns(cursor, table)
    values = ", ".join(changed.get(column, column) for column in columns)
    cursor.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, generate_series(%s, %s) AS n "  # noqa: S608
        "WHERE run_uuid = ANY(%s)",
        (copies[0], copies[1] - 1, list(runs)),
    )


def _other(column: str) -> str:
    return f"md5({column} || '-' || n)"


def _columns(cursor: Any, table: str) -> list[str]:
    cursor.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s", (table,)
    )
    return [name for (name,) in cursor.fetchall()]
