"""Real image sets of many kinds through ``reflux data add`` and ``reflux run``, with no other argument.

    .venv/bin/python -m benchmarks.datasets --data DIR                      # all sets, seeds 0, 1 and 2: hours
    .venv/bin/python -m benchmarks.datasets --only digits icons --seeds 0   # these alone
    .venv/bin/python -m benchmarks.datasets --only digits --minutes 3       # a quick look
    .venv/bin/python -m benchmarks.datasets --data DIR --build              # write the sets, run nothing

Each set is a folder as a user would have it (``benchmarks/datasets/sources``: what is in it, where it is from, and
under which license). For each seed a fresh copy of this checkout adds it and runs; the seed is the only param that is
set. DIR holds Fashion-MNIST and MNIST; the other sets are made of packages, which apt and npm fetch and check.

The gain is the student's accuracy less its control's, in points, with Student's t interval (95 %) over the seeds. They
share the split, so the interval covers the randomness of training, not that of the test images; a single run has the
interval that it gives itself, which is from its test images. Minutes are those that ``data add`` foresaw for the run
and those that it took. Accuracies are of the test split. In a run it chooses nothing, but the
rules by which runs are planned were partly chosen on test images of these sets: see ``chosen.py``.

A finished run is kept in ``datasets_runs.json``, next to the figures and with its commit, and is not measured again
unless its images, the minutes or ``--again`` ask for it. The figures are of all kept runs of as many minutes.
"""

from pathlib import Path

from benchmarks.datasets.report import figures_of, notes_of, table
from benchmarks.datasets.runs import DEFAULT_MINUTES, Run, keep_run, read_runs, run
from benchmarks.datasets.sets import SETS, Place, build, counts, digest
from benchmarks.harness.results import ROOT, argument_parser, commit, read, write


def main() -> None:
    """Build the sets, run what is not kept yet, write the figures and print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path.home(), help="the folder of fashion-mnist/ and mnist/")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=SETS, default=list(SETS), help=f"{', '.join(SETS)}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="that a run may take")
    parser.add_argument("--again", action="store_true", help="also what is kept, in its place")
    parser.add_argument("--build", action="store_true", help="write the sets, print their folders and stop")
    parser.add_argument("--kept", type=Path, default=ROOT / ".reflux/datasets", help="of sets and packages")
    options = parser.parse_args()
    place = Place(options.data, options.kept / "packages")
    folders = {name: build(name, place, options.kept / "sets") for name in options.only}
    for name, folder in folders.items():
        print(f"{name:15} {folder}", flush=True)
    if options.build:
        return
    about = {name: (digest(folder), counts(folder)) for name, folder in folders.items()}
    for seed in options.seeds:
        for name, folder in folders.items():
            key = name, seed, options.minutes, about[name][0]
            if options.again or all(kept.key != key for kept in read_runs(options.out)):
                print(f"\n{name}, seed {seed}", flush=True)
                at = commit()
                keep_run(Run(*key, about[name][1], at, run(folder, seed, options.minutes)), options.out)
            runs = [kept for kept in read_runs(options.out) if kept.minutes == options.minutes]
            path = write("datasets", figures_of(runs), options.out, notes_of(runs))
    print(f"\n{table(read('datasets', options.out))}\n\nWritten: {path}")


if __name__ == "__main__":
    main()
