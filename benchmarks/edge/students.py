"""Students that learn from the soft labels of a finished run: for benchmarks that compare networks over seeds."""

import shutil
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path

from benchmarks.harness.results import ROOT, Figure, argument_parser, write
from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import targets_from
from reflux.components.core.params.file import override_params
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.modalities.image.models.small_nets import base_and_width, small_net
from reflux.components.stages.distill.trainer import Trainer

READ = ("ingest", "finetune", "label")


@contextmanager
def workspace(checkout: Path, folder: Path) -> Iterator[None]:
    """Work in an empty folder, on the data, the teacher and the soft labels that a checkout's last run has left."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(checkout / name, folder)
    (folder / "artifacts").mkdir()
    for name in READ:
        (folder / "artifacts" / name).symlink_to(checkout.absolute() / "artifacts" / name)
    with chdir(folder):
        yield


def trained(seed: int, *assignments: str) -> PixelModel:
    """The student after ``distill`` in a workspace, with the run's params but for these."""
    before = Path("params.yaml").read_bytes()
    params = override_params(list(assignments))
    Path("params.yaml").write_bytes(before)
    device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
    return Trainer(Stage("distill", params), device).train_student(None, seed)


def small_student(params: Params) -> tuple[str, float]:
    """The small net that is the run's student, and its width.

    Raises:
        UserError: it is none of the small nets, or no stored soft labels teach it.
    """
    base, width = base_and_width(params.student.model)
    if small_net(base) is None or targets_from(params.distill) != "store":
        raise UserError("It compares one of the small nets, taught by stored soft labels: run with such params.")
    return base, width


def seeds_parser(description: str | None) -> ArgumentParser:
    """A parser for the seeds, and for the checkout whose run stored the soft labels."""
    parser = argument_parser(description)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument(
        "--run", type=Path, default=ROOT, help="the checkout whose last `reflux run` stored soft labels"
    )
    return parser


def measure(
    name: str,
    seeds: Sequence[int],
    out: Path,
    run: Callable[[Path, int], Mapping[str, float]],
    figures_of: Callable[[Sequence[Mapping[str, float]]], list[Figure]],
    section: Callable[[Path], str],
) -> None:
    """Run a benchmark with each seed in a folder of its own; print its table and write its figures after each.

    Args:
        name: of the benchmark.
        seeds: to run it with.
        out: the folder of the result files.
        run: takes an empty folder and a seed, and returns results by their names.
        figures_of: makes figures of the results of several seeds.
        section: makes the table of the figures in a folder.

    Raises:
        UserError: the run can't be compared.
    """
    results: list[Mapping[str, float]] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            results.append(run(Path(scratch), seed))
        written = write(name, figures_of(results), out)
        print(f"\nAfter seed {seed}:\n\n{section(out)}\n\nWritten: {written}", flush=True)
