"""The command of the benchmarks that measure files."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.edge.networks import Writer, measured
from benchmarks.edge.report import figures_of
from benchmarks.harness.results import ROOT, Figure, argument_parser, write
from reflux.components.core.errors import UserError


def run_benchmark(name: str, description: str | None, write_files: Writer, section: Callable[[Path], str]) -> None:
    """Measure the networks' files, print their table and write their figures, as the command line says."""
    parser = argument_parser(description)
    parser.add_argument("--run", type=Path, default=ROOT, help="the checkout whose last `reflux run` made the student")
    options = parser.parse_args()
    figures: list[Figure] = []
    try:
        for network, rows in measured(options.run, write_files):
            figures += figures_of(network, rows)
    except UserError as error:
        parser.error(str(error))
    written = write(name, figures, options.out)
    print(f"\n{section(options.out)}\n\nWritten: {written}")
