"""OCI registries: a version is one artifact, each of its files a layer that is titled with its path."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from reflux.components.core.errors import UserError
from reflux.components.registry.targets.target import Published, ping

_LOCAL = ("localhost", "127.0.0.1")
_FILE = "application/octet-stream"
_PREFIX = "org.opencontainers.image."


@dataclass(frozen=True)
class Registry:
    """A tag of a repository in a registry. Credentials are those of ``docker login`` or ``oras login``.

    A registry on this machine is reached over HTTP.
    """

    host: str
    repository: str
    tag: str

    @property
    def insecure(self) -> bool:
        return self.host.partition(":")[0] in _LOCAL

    def check(self) -> None:
        if find_spec("oras") is None:
            raise UserError("Publishing needs the package oras: `pip install oras`.")
        ping("OCI registry", f"{'http' if self.insecure else 'https'}://{self.host}", "/v2/")

    def push(self, folder: Path, names: Sequence[str], facts: Mapping[str, str]) -> Published:
        import requests
        from oras.client import OrasClient

        reference = f"{self.host}/{self.repository}:{self.tag}"
        titles = {str(folder / name): {f"{_PREFIX}title": name} for name in names}
        with tempfile.NamedTemporaryFile("w", prefix="reflux-", suffix=".json", encoding="utf-8") as file:
            json.dump(titles, file)
            file.flush()
            try:
                answer = OrasClient(insecure=self.insecure).push(
                    reference,
                    files=[f"{folder / name}:{_FILE}" for name in names],
                    annotation_file=file.name,
                    manifest_annotations={f"{_PREFIX}{key}": value for key, value in facts.items()},
                    disable_path_validation=True,
                    quiet=True,
                )
            except (ValueError, requests.RequestException) as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise UserError(
                    f"{reference} was not pushed ({reason}): check the address, and `docker login`."
                ) from None
        digest = answer.headers.get("Docker-Content-Digest", "")
        return Published(reference, digest, len(names), f"oras pull {reference}")
