"""A container as Compose's file or Kubernetes' templates describe it, without an engine: its user, mounts, no rights.

Needs user namespaces, and nobody's rights. The root is this machine's, read-only; what is mounted on it the manifest's.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

_BIND, _RECURSIVE, _PRIVATE = 4096, 16384, 1 << 18
_MOUNT_SETATTR, _HERE, _ALL_BELOW, _READ_ONLY = 442, -100, 0x8000, 1
_CHECKOUT = Path(__file__).resolve().parents[1]  # with its environment: a test runs both, wherever they lie


@dataclass(frozen=True)
class Container:
    """What a manifest says of a container.

    Attributes:
        user: its uid, and its gid.
        variables: its environment, the image's included.
        volumes: what is mounted where, folders and files that exist; None is an empty file system in memory.
        read_only: those of ``volumes`` that it may not write.
        workdir: where its command starts.
    """

    user: int
    variables: dict[str, str]
    volumes: dict[str, str | None]
    read_only: tuple[str, ...] = ()
    workdir: str = "/"


def run_in(container: Container, command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command in a container, and wait for its end."""
    return subprocess.run(_inside(container, command), env=_none(), capture_output=True, text=True, check=False)


def start_in(container: Container, command: list[str], log: Path) -> "subprocess.Popen[str]":
    """Start a command in a container, in a process group of its own; its output goes into ``log``."""
    inside = _inside(container, command)
    with log.open("w") as file:
        return subprocess.Popen(inside, env=_none(), text=True, stdout=file, stderr=file, start_new_session=True)


@cache
def why_not() -> str:
    """Why this machine can have no such container; empty where it can."""
    if not shutil.which("unshare"):
        return "NO NAMESPACES: util-linux's unshare is not here"
    done = run_in(Container(10001, {}, {"/tmp": None}), ["/bin/true"])  # noqa: S108
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"NO NAMESPACES: this system allows no user namespace with mounts ({last})" if done.returncode else ""


@cache
def no_network_of_its_own() -> str:
    """Why a user of this machine can have no network namespace; empty where one can."""
    if not (unshare := shutil.which("unshare")):
        return "NO NAMESPACES: util-linux's unshare is not here"
    done = subprocess.run([unshare, "--user", "--net", "true"], capture_output=True, text=True, check=False)
    return (
        f"NO NAMESPACES: this system allows no user its own network ({done.stderr.strip()})" if done.returncode else ""
    )


def _none() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


def _inside(container: Container, command: list[str]) -> list[str]:
    as_root_of_its_own = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    return [*as_root_of_its_own, sys.executable, __file__, json.dumps(asdict(container)), *command]


def _mount(source: str, target: Path, kind: str | None, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), bytes(target), kind and kind.encode(), flags, None):
        raise OSError(ctypes.get_errno(), f"mount: {os.strerror(ctypes.get_errno())}", str(target))


def _forbid_writing(root: Path) -> None:
    """Make a mount and all below it read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, 0, 0)
    if libc.syscall(_MOUNT_SETATTR, _HERE, bytes(root), _ALL_BELOW, attributes, ctypes.sizeof(attributes)):
        raise OSError(ctypes.get_errno(), f"mount_setattr: {os.strerror(ctypes.get_errno())}", str(root))


def _mirror(original: Path, copy: Path, targets: list[Path]) -> None:
    """Show a folder in ``copy``, where the mount points ``targets`` can be made: they need not exist here."""
    for entry in sorted(original.iterdir()) if original.is_dir() else ():
        there = copy / entry.name
        if entry.is_symlink():
            there.symlink_to(entry.readlink())
        elif entry.is_dir() and any(target.is_relative_to(entry) for target in targets):
            there.mkdir()
            _mirror(entry, there, targets)
        else:
            there.mkdir() if entry.is_dir() else there.touch()
            _mount(str(entry), there, None, _BIND | _RECURSIVE)


def _enter(container: Container, command: list[str]) -> None:
    """Mount what the container has, become its user and its command."""
    root = Path("/mnt") if Path("/mnt").is_dir() else Path("/media")
    # With links followed, such as that of /var/run: they lead out of the new root.
    targets = {target: Path(target).parent.resolve() / Path(target).name for target in container.volumes}
    # The sources may lie below a folder that a mount hides, and so may the checkout.
    sources = {target: os.open(source, os.O_PATH) for target, source in container.volumes.items() if source}
    checkout = os.open(_CHECKOUT, os.O_PATH)
    hidden = any(_CHECKOUT.is_relative_to(target) for target in targets.values())
    _mount("tmpfs", root, "tmpfs", 0)
    inside = root / "root"
    inside.mkdir()
    _mirror(Path("/"), inside, [*targets.values(), root])
    for target in targets.values():
        there = inside / target.relative_to("/")
        if not there.exists():
            there.mkdir(parents=True)
    _forbid_writing(root)
    for target in container.volumes:
        there = inside / targets[target].relative_to("/")
        if target in sources:
            _mount(f"/proc/self/fd/{sources[target]}", there, None, _BIND)
        else:
            _mount("tmpfs", there, "tmpfs", 0)
        if target in container.read_only:
            _forbid_writing(there)
    if hidden:
        (there := inside / _CHECKOUT.relative_to("/")).mkdir(parents=True)
        _mount(f"/proc/self/fd/{checkout}", there, None, _BIND)
        _forbid_writing(there)
    become = ["unshare", "--user", f"--map-user={container.user}", f"--map-group={container.user}"]
    become += [f"--root={inside}", f"--wd={container.workdir}"]
    os.execvpe(become[0], [*become, *command], os.environ | container.variables)  # noqa: S606 - a list, and no shell


if __name__ == "__main__":
    _enter(Container(**json.loads(sys.argv[1])), sys.argv[2:])
