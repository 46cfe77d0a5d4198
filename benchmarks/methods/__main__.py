"""Every distillation method against kd and a student without a teacher, on Fashion-MNIST, at the same budget.

    .venv/bin/python -m benchmarks.methods --data DIR            # a folder of Fashion-MNIST's train and test.parquet
    .venv/bin/python -m benchmarks.methods --data DIR --seeds 0  # one seed
    .venv/bin/python -m benchmarks.methods --few-labels          # the project's own sample: few labels, many images
    .venv/bin/python -m benchmarks.methods --quick               # see that it runs, on the sample; no figures

The teacher learns from 10,000 labeled images, and so does every student: the same steps, views, optimizer and schedule,
from the same weights at a seed. 5,000 other training images choose the weights; the test images are looked at once.
Methods have their defaults, not tuned, and the labels the weight 1 next to all of them (mse-logits too).
``control-2x`` is the control with twice the steps: what it gains is what the budget has left.

With ``--few-labels`` the teacher is the pipeline's: ingest, pretrain and finetune run in a copy of this checkout.
Students learn from 500 labeled and 9,000 unlabeled images in one view each, the control from the labeled ones, in a new
view at each visit, as in the pipeline.

The teacher's logits and features of the views are computed once. Accuracies are means over the seeds with Student's t
interval (95 %), gains those of the differences to kd and to the control seed by seed. Times are the processor's of a
training step on one thread, which hardly depends on what else the machine does, with stored soft labels or, where
layers are compared, with a live teacher, in rounds that take turns.

Results of finished training runs are kept in ``.reflux/methods``: an interrupted benchmark resumes, and several
processes can divide the seeds (``--seeds``, each with an ``--out`` of its own) before one writes the figures of all.
"""

import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch

from benchmarks.harness.checkout import code_digest
from benchmarks.harness.results import ROOT, argument_parser, write
from benchmarks.methods.accuracies import accuracies, in_fp32
from benchmarks.methods.report import figures_of, table
from benchmarks.methods.students import ALL, STUDENTS
from benchmarks.methods.task import TEACHER, few_labels, many_labels
from benchmarks.methods.times import step_times
from benchmarks.methods.training import untrained

STEPS = 600


def main() -> None:
    """Train what is not kept yet, time the steps, write the figures and print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--data", type=Path, default=ROOT / "data/fashion-mnist", help="Fashion-MNIST; see benchmarks/README.md"
    )
    parser.add_argument("--few-labels", action="store_true", help="on the project's own sample")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--students", nargs="+", default=list(STUDENTS[:1]), help=f"such as {' '.join(STUDENTS)}")
    parser.add_argument("--only", nargs="+", metavar="METHOD", default=ALL, help="these methods alone")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a student, of 128 images")
    parser.add_argument("--kept", type=Path, default=ROOT / ".reflux/methods", help="folder of finished results")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, seeds = (2, [0]) if options.quick else (options.steps, options.seeds)
    with nullcontext() if options.few_labels else in_fp32(), tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) if options.quick else options.kept
        kept = kept / f"{code_digest(Path(__file__).parent)}-{steps}{'-few' if options.few_labels else ''}"
        kept.mkdir(parents=True, exist_ok=True)
        task = few_labels(kept) if options.few_labels else many_labels(options.data, steps, kept)
        results = accuracies(task, options.students, options.only, seeds, steps, kept)
    figures = figures_of(results, {} if options.few_labels else step_times(untrained(TEACHER, 0).eval()))
    print(f"\n{table(figures)}")
    if not options.quick:
        name = "few_labels" if options.few_labels else "methods"
        print(f"\nWritten: {write(name, figures, options.out)}")


if __name__ == "__main__":
    main()
