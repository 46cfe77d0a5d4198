"""Programs that are started without a network: real processes, in namespaces where the system allows them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reflux.components.registry.versions import offline
from tests.containers import no_network_of_its_own

PROGRAM = "import os, socket, sys; print(sys.argv[1:], [n for _, n in socket.if_nameindex()], os.getuid(), os.getgid())"


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return [sys.executable, "-I", offline.__file__, str(program), "argument"]


def output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_program_has_no_interface_but_its_loopback_and_stays_the_same_user(command):
    if why_not := no_network_of_its_own():
        pytest.skip(why_not)
    assert output(command) == f"['argument', 'offline'] ['lo'] {os.getuid()} {os.getgid()}"


def test_where_the_system_allows_no_namespaces_the_program_runs_all_the_same_and_knows(command):
    """Within a user namespace that may have none below it, as a container's often is."""
    if why_not := no_network_of_its_own():
        pytest.skip(why_not)
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    inside = [str(shutil.which("unshare")), "--user", "--map-root-user", "sh", "-c", forbid, "sh", *command]
    assert output(inside).startswith("['argument', 'online'] ['lo'")
