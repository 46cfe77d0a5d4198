"""DVC in this checkout: as a command, and made ready to work."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reflux.components.core.artifacts import translate_os_error
from reflux.components.core.errors import UserError
from reflux.components.core.project import root
from reflux.flows.local.supervised import output_of, supervised

_SECONDS_TO_WRITE_A_LOCK = 0.5
_SITE_CACHE = "DVC_SITE_CACHE_DIR"
_OURS = f"site-{os.getuid()}"
_CONFIG = "[core]\n    analytics = false\n    check_update = false\n    autostage = false\n"


def dvc(*arguments: str) -> tuple[int, list[str]]:
    """Run a DVC command to its end.

    Returns:
        Its exit code, and the lines that it printed.
    """
    return output_of(start_dvc(*arguments))


def start_dvc(*arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start a DVC command under the supervisor; its output is a pipe."""
    remove_torn_lock()
    keep_cache_private()
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    return supervised(command, environment or {}, stdout=subprocess.PIPE)


@contextmanager
def refusals_of_dvc() -> Iterator[None]:
    """Turn what DVC refuses where it is asked in this process into one sentence.

    Raises:
        UserError: it refuses a file of the project, such as a ``dvc.lock`` that a merge has damaged.
    """
    from dvc.exceptions import DvcException

    keep_cache_private()
    try:
        yield
    except DvcException as error:
        raise _refusal((str(error).strip().splitlines() or [type(error).__name__])[0]) from None
    except UnicodeDecodeError:
        raise _refusal("one of its files, such as .dvcignore, is not UTF-8 text") from None


def _refusal(reason: str) -> UserError:
    return UserError(f"DVC refuses this project ({reason.rstrip('.')}): correct that, or restore the file from git.")


def prepare_dvc() -> None:
    """Make DVC work in this folder, under git or not, and not wait for minutes on an S3 that is away.

    Raises:
        UserError: the folder is not writable, or DVC's settings or .dvcignore are damaged.
    """
    # By themselves its S3 clients try each request of a push again and again; a push is itself tried again as a whole.
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
    config, local = root() / ".dvc/config", root() / ".dvc/config.local"
    try:
        if (ignore := root() / ".dvcignore").is_file():
            with refusals_of_dvc():
                ignore.read_text(encoding="utf-8")
        if not config.is_file():
            config.parent.mkdir(exist_ok=True)
            config.write_text(_CONFIG, encoding="utf-8")
            (config.parent / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
        without_git = local.is_file() and "no_scm" in local.read_text(encoding="utf-8")
        if without_git == in_git():
            value = ["--unset"] if without_git else ["true"]
            code, lines = dvc("config", "--local", "core.no_scm", *value)
            if code != 0:
                said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
                raise _refusal(next(iter(said), "no reason given"))
    except OSError as error:
        raise translate_os_error(error, config) from error


def keep_cache_private() -> None:
    """Keep DVC's index of this checkout's files in the checkout, for its user alone, unless DVC is told otherwise.

    By itself DVC keeps it in ``/var/tmp/dvc``, where all users of a machine may write, and unpickles what is there
    (CVE-2025-69872, issue 40); a container with a read-only root has no such folder.

    Raises:
        UserError: the folder can't be made, or is another user's.
    """
    set_before = Path(os.environ.get(_SITE_CACHE, "")).name
    if not (root() / ".dvc").is_dir() or set_before not in ("", _OURS) or _is_configured():
        return
    folder = root().resolve() / ".dvc/tmp" / _OURS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise translate_os_error(error, folder) from error
    os.environ[_SITE_CACHE] = str(folder)


def _is_configured() -> bool:
    """Whether ``core.site_cache_dir`` is set for this project, user or machine."""
    from dvc.config import Config, ConfigError

    try:
        return bool(Config.from_cwd(validate=False).get("core", {}).get("site_cache_dir"))
    except (ConfigError, UnicodeDecodeError):
        return False  # DVC itself says what is wrong


def in_git() -> bool:
    """Whether this folder or one above it is a git checkout, as DVC looks for it."""
    here = Path.cwd()
    return any((folder / ".git").exists() for folder in (here, *here.parents))


def remove_torn_lock() -> None:
    """Remove DVC's table of running stages if a kill -9 cut it short: DVC refuses to work with such a file."""
    table = root() / ".dvc/tmp/rwlock"
    for _ in range(2):  # the second look is for one that another DVC is writing just now
        try:
            json.loads(table.read_bytes())
            return
        except FileNotFoundError:
            return
        except ValueError:
            time.sleep(_SECONDS_TO_WRITE_A_LOCK)
    table.unlink(missing_ok=True)
