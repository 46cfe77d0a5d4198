"""Start a program without a network, where the system lets this user do so.

:mod:`reflux.components.registry.versions.smoke` starts it as ``python -I offline.py PROGRAM ARGUMENT…``. Like the
program it imports nothing of the project. The program gets one more argument: ``offline`` or ``online``.
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000


def leave_network() -> bool:
    """Move this process, which must have one thread, to a network namespace without any interface that is up.

    Its user namespace, which an ordinary user needs for that, also keeps it from reading the environment and the memory
    of this user's other processes.

    Returns:
        Whether the system allows it: other systems than Linux, and most containers, don't.
    """
    user, group = os.getuid(), os.getgid()
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    if unshare is None or unshare(_NEW_USER | _NEW_NETWORK):
        return False
    # Under its own numbers; a system that refuses them calls it nobody, and its rights to files are the same.
    with suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


if __name__ == "__main__":
    network = "offline" if leave_network() else "online"
    os.execv(sys.executable, [sys.executable, "-I", *sys.argv[1:], network])  # noqa: S606 - which also drops its rights
