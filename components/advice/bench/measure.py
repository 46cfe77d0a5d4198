"""Files of students measured on this machine, by what ``reflux bench --export`` gives to other ones."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reflux.components.advice.bench.export import write_folder
from reflux.components.advice.bench.report import Report, read
from reflux.components.core.data.shards import Shard

_HERE = "this-machine"


def measure(
    files: Mapping[str, Path],
    val: Shard,
    classes: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
    project: str,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure files against the first of them, in a process that imports their runtimes and NumPy alone.

    Args:
        files: by their names for people.
        val: the labeled images to answer.
        classes: of the dataset, by their names.
        threads, batches: numbers of threads and of images at once, each with each.
        project: whose files they are.
        say: takes what is done now, line by line.

    Raises:
        UserError: a file is damaged, takes something else than raw pixels or has other classes.
    """
    with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
        write_folder(folder := Path(temporary, "bench"), files, val, classes, threads, batches, project)
        command = [sys.executable, "bench.py", "--device", _HERE]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
            try:
                for line in process.stdout or ():
                    if " is the report: " not in line:  # the folder is gone by the time that it is read
                        say(line.rstrip())
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return read(folder / f"report-{_HERE}.json")
