"""What the places have in common that a version can be pushed to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reflux.components.core.errors import UserError

_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Published:
    """A pushed version: its reference, its manifest's or commit's id, the number of its files, and how to get them."""

    reference: str
    digest: str
    files: int
    get: str


class Target(Protocol):
    """A place for the files of a version."""

    def check(self) -> None:
        """Refuse a place that can't be pushed to, before anything is fetched.

        Raises:
            UserError: nothing answers there, or a package or credentials are missing.
        """

    def push(self, folder: Path, names: Sequence[str], facts: Mapping[str, str]) -> Published:
        """Push files.

        Args:
            folder: holds them.
            names: their paths in it.
            facts: what is known of the version, by the keys of the OCI image specification's annotations.

        Raises:
            UserError: they are refused, or the connection is lost.
        """


def ping(kind: str, address: str, path: str = "/") -> None:
    """Ask whether anything answers, as clients of registries try for minutes.

    Args:
        kind: of server, for the sentence.
        address: its URL.
        path: what to ask for.

    Raises:
        UserError: nothing answers.
    """
    import requests

    try:
        requests.get(f"{address}{path}", timeout=_PATIENCE_S, stream=True).close()
    except requests.RequestException as error:
        reason = type(error).__name__
        raise UserError(f"No {kind} answers at {address} ({reason}): check the address.") from None
