"""MLflow's accounts in a shared stack: a role, and an account that has it and is no administrator.

As a program it waits for the server and makes the workers' account, whose password it resets, so that a secret that was
changed holds again: ``python infra/local/accounts.py``, with the variables of ``infra/servers/mlflow``.
"""

import os
import sys
import time
from typing import Any

import httpx

ADMIN = "reflux-admin"
# Who may move an alias is who may edit a registered model, or write the ledger, of which the next command carries out
# what was begun. MLflow has no finer permission: what registers versions may promote them. Locks are registered models
# and runs, of which those of dead processes are deleted by another one.
ROLE = "reflux-promotes"
PERMISSIONS = {"experiment": "EDIT", "run": "MANAGE", "registered_model": "MANAGE"}
_WORKSPACE = "default"
_SECONDS_TO_ANSWER = 600.0


class Accounts:
    """MLflow's accounts, as its administrator sees them."""

    def __init__(self, uri: str, password: str) -> None:
        self._http = httpx.Client(base_url=uri, auth=(ADMIN, password), timeout=60)

    def make(self, name: str, password: str, promotes: bool) -> None:
        """Make an account, or set its password; it is no administrator, and has the role or not.

        Raises:
            httpx.HTTPError: the server does not answer, or refuses.
        """
        if self._call("GET", "2.0", "users/get", known=False, username=name) is None:
            self._call("POST", "2.0", "users/create", username=name, password=password)
        else:
            self._call("PATCH", "2.0", "users/update-password", username=name, password=password)
        self._call("PATCH", "2.0", "users/update-admin", username=name, is_admin=False)
        has = {role["name"] for role in self._call("GET", "3.0", "users/roles/list", username=name)["roles"]}
        if promotes != (ROLE in has):
            method, verb = ("POST", "assign") if promotes else ("DELETE", "unassign")
            self._call(method, "3.0", f"roles/{verb}", username=name, role_id=self._role())

    def _role(self) -> int:
        """Make the role with its permissions, unless it is there; returns its number."""
        known = {role["name"]: role for role in self._call("GET", "3.0", "roles/list", workspace=_WORKSPACE)["roles"]}
        role = known.get(ROLE) or self._call("POST", "3.0", "roles/create", workspace=_WORKSPACE, name=ROLE)["role"]
        given = self._call("GET", "3.0", "roles/permissions/list", role_id=role["id"])["role_permissions"]
        have = {(each["resource_type"], each["permission"]) for each in given if each["resource_pattern"] == "*"}
        for kind, permission in PERMISSIONS.items():
            if (kind, permission) not in have:
                grant: dict[str, Any] = {"resource_type": kind, "resource_pattern": "*", "permission": permission}
                self._call("POST", "3.0", "roles/permissions/add", role_id=role["id"], **grant)
        return int(role["id"])

    def _call(self, method: str, version: str, path: str, known: bool = True, **fields: Any) -> Any:
        sent: dict[str, Any] = {"params": fields} if method == "GET" else {"json": fields}
        response = self._http.request(method, f"/api/{version}/mlflow/{path}", **sent)
        if not known and response.status_code == httpx.codes.NOT_FOUND:
            return None
        return response.raise_for_status().json() if response.content else None


def main() -> None:
    """Make the workers' account once the server answers."""
    name, password, admin = (
        os.environ[f"MLFLOW_{key}"] for key in ("TRACKING_USERNAME", "TRACKING_PASSWORD", "ADMIN_PASSWORD")
    )
    host = os.environ["REFLUX_HOST"].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    accounts = Accounts(f"http://{host}:{os.environ['REFLUX_MLFLOW_PORT']}", admin)
    deadline = time.monotonic() + _SECONDS_TO_ANSWER
    while True:
        try:
            accounts.make(name, password, promotes=True)
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                sys.exit(f"Error: MLflow's account {name} could not be made ({error}).")
            time.sleep(1)
        else:
            return


if __name__ == "__main__":
    main()
