"""Section 3 of Hinton, Vinyals and Dean 2015 (arXiv:1503.02531) on the full MNIST, through this project's own parts.

    .venv/bin/python -m benchmarks.hinton_mnist --data ~/mnist             # seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.hinton_mnist --data ~/mnist --validate  # how the settings were chosen
    .venv/bin/python -m benchmarks.hinton_mnist --quick                    # 1,000 images that ship with the tests

The data is train.parquet and test.parquet in the Hugging Face layout. Where the paper says how, it is done so: all
60,000 training images, none held out; a teacher of 2x1200 units with dropout, constrained weights and images moved by
up to two pixels; students that see the images as they are. It does not say how long, how fast, in which batches, nor
how hard and soft targets are weighted. That was chosen on the last 10,000 training images (--validate), with the others
to learn from. No training run stops early, and nothing is chosen on test images: the last weights are measured.

The paper raises the bias of what the transfer set lacks by what is best on the test images. Here it is what is best on
the training images.

It prints a table of paper against ours, draws temperatures against widths and writes
``benchmarks/results/hinton_mnist.json``: means over the seeds with Student's t interval (95 %). A seed that was done
before, by this version of the code, is not done again (--kept).
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.harness.checkout import code_digest
from benchmarks.harness.images import part, read_split
from benchmarks.harness.results import ROOT, argument_parser, write
from benchmarks.hinton_mnist.experiment import (
    DISTILLED,
    JITTER,
    STUDENT,
    TEACHER,
    errors,
    logits_of,
    run,
    train_network,
)
from benchmarks.hinton_mnist.paper import figures_of, plot, table
from reflux.components.core.artifacts import read_json, write_json

SAMPLE = ROOT / "tests/data/mnist"


def quick() -> None:
    """Check on a small sample that a student learns from its teacher what it doesn't learn from the labels."""
    images, test = read_split(SAMPLE, "train"), read_split(SAMPLE, "test")
    teacher_settings, student_settings, distilled_settings = (
        replace(settings, batch_size=64, epochs=epochs, lr=1e-3, label_weight=0.1)
        for settings, epochs in ((TEACHER, 20), (STUDENT, 15), (DISTILLED, 20))
    )
    teacher = train_network(teacher_settings, images, 0, augment=JITTER)
    soft = logits_of(teacher, images).clone()
    networks = (teacher, train_network(distilled_settings, images, 0, soft), train_network(student_settings, images, 0))
    best, distilled, alone = (errors(logits_of(network, test), test.labels) for network in networks)
    print(f"of {len(test)} test images: teacher {best} wrong, distilled {distilled}, student alone {alone}")
    if not best < distilled < alone:
        sys.exit("Error: the order is to be teacher < distilled < student alone.")


def main() -> None:
    """Run the seeds that were not run before, then print the table and write the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, help="MNIST's train.parquet and test.parquet; see benchmarks/README.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--kept", type=Path, default=ROOT / ".reflux/hinton_mnist", help="folder of finished seeds")
    parser.add_argument("--validate", action="store_true", help="test on the last 10,000 training images")
    parser.add_argument("--quick", action="store_true", help="the order of errors on a small sample; no figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        quick()
        return
    if options.data is None:
        sys.exit("Error: name a folder of MNIST's train.parquet and test.parquet with --data.")
    images = read_split(options.data, "train")
    if options.validate:
        images, test = part(images, slice(-10_000)), part(images, slice(-10_000, None))
    else:
        test = read_split(options.data, "test")
    code = code_digest(Path(__file__).parent)
    results = []
    for seed in options.seeds:
        kept = options.kept / f"{'validate' if options.validate else 'test'}-{code}-{seed}.json"
        if not kept.is_file():
            write_json(kept, run(images, test, seed))
        results.append(read_json(kept))
    figures = figures_of(results)
    print(f"\n{table(figures)}")
    if not options.validate:
        print(f"\nWritten: {write('hinton_mnist', figures, options.out)}, {plot(figures)}")


if __name__ == "__main__":
    main()
