"""The Hugging Face hub: a version is one commit of a model repository, its card also the repository's README."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflux.components.core.errors import UserError, listed
from reflux.components.registry.targets.target import Published, ping

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

SCHEME = "hf://"
TOKEN, ENDPOINT = "HF_TOKEN", "HF_ENDPOINT"

_HUB = "https://huggingface.co"
_README = "README.md"
_OWN = {".gitattributes", _README}  # files that a repository may have before its first version
_MARK = "MLmodel"  # is among the files of every version
_NAMED = 3


@dataclass(frozen=True)
class Repository:
    """A model repository, ``user/name``.

    The token comes from ``HF_TOKEN`` alone, not from a login on this machine, so that a run on another machine behaves
    the same. ``HF_ENDPOINT`` names another hub.

    Attributes:
        card: the path of the model card among the files.
        public: make the repository public if it is new, and push to one that is.
    """

    name: str
    card: str
    public: bool

    def check(self) -> None:
        if not os.environ.get(TOKEN):
            raise UserError(f"Pushing to the hub needs {TOKEN}, a token that may write: {_HUB}/settings/tokens.")
        ping("hub", _endpoint())

    def push(self, folder: Path, names: Sequence[str], facts: Mapping[str, str]) -> Published:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi(endpoint=_endpoint(), token=os.environ[TOKEN])
        # The bases are errors of the client that the hub's library uses: requests, httpx or httpx2, by its release.
        others: Any = (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)
        try:
            commit = self._commit(api, folder, names, f"{facts['title']} version {facts['version']}")
        except HfHubHTTPError as error:
            raise UserError(f"{SCHEME}{self.name} was not pushed: {self._refusal(error)}.") from None
        except others as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{SCHEME}{self.name} was not pushed ({reason}): push again.") from None
        return Published(f"{SCHEME}{self.name}", commit.oid, len(names), f"hf download {self.name}")

    def _commit(self, api: "HfApi", folder: Path, names: Sequence[str], message: str) -> "CommitInfo":
        """Make the repository hold these files, and no others, by one commit."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        present = self._present(api)
        files = {name: folder / name for name in names}
        if self.card in files:
            files[_README] = files[self.card]
        return api.create_commit(
            self.name,
            [
                *(CommitOperationAdd(name, path) for name, path in files.items()),
                # Of the version before: another format's file, for example, would not be in the signature.
                *(CommitOperationDelete(name) for name in sorted(present - files.keys() - _OWN)),
            ],
            commit_message=message,
        )

    def _present(self, api: "HfApi") -> set[str]:
        """The files in the repository, which is created if there is none.

        Raises:
            UserError: it is public, or holds something else than a version.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = api.model_info(self.name)
        except RepositoryNotFoundError:
            api.create_repo(self.name, private=not self.public)
            return set()
        if not (info.private or self.public):
            raise UserError(f"{SCHEME}{self.name} is public: push with --public, or name another repository.")
        present = {each.rfilename for each in info.siblings or ()}
        if (strangers := present - _OWN) and _MARK not in present:
            raise UserError(
                f"{SCHEME}{self.name} holds files that are no version's ({listed(sorted(strangers), _NAMED)}), which a "
                "push would remove: name a new repository."
            )
        return present

    def _refusal(self, error: Any) -> str:
        status, said = error.response.status_code, error.server_message
        known = {
            401: f"the hub refuses {TOKEN}; make one that may write at {_HUB}/settings/tokens",
            403: f"{TOKEN} may not write there; take a token of a user who may, or name a repository of your own",
            404: "the hub has no such user, organization or repository",
        }
        return known.get(status, f"the hub answered {status}{f' ({said})' if said else ''}; push again")


def _endpoint() -> str:
    return os.environ.get(ENDPOINT, _HUB).rstrip("/")
