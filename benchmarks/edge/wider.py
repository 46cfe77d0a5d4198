"""Is a wider network in int8 better than the student in fp32, inside the same bytes?

    .venv/bin/python -m benchmarks.edge.wider                         # after `reflux run`; seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.edge.wider --run CHECKOUT 0 1 2 3  # the soft labels of another checkout's run

Each seed has two networks, trained by the soft labels that the run stored and with its params: its student, which for
the run's own seed is the one that it trained, and the same network ``--width`` times as wide, whose int8 file has about
the bytes of the student's fp32 file. It prints a table and writes ``benchmarks/results/wider.json`` after each seed:
bytes, and accuracies of the frozen test split in percent, at the checkpoint that validation data chose, with Student's
t over the seeds (95 %). The learning rate is the student's for both. Some minutes of two idle cores a seed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.edge.networks import CALIBRATION
from benchmarks.edge.students import measure, seeds_parser, small_student, trained, workspace
from benchmarks.harness.results import Figure, of_seeds, read
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from reflux.components.core.export import network as files
from reflux.components.core.export.formats import onnx
from reflux.components.core.export.program import Source
from reflux.components.core.params.file import load_params
from reflux.components.modalities.image.models.pixel_model import PixelModel, load
from reflux.components.modalities.image.models.small_nets import with_width

STUDENT = Path("artifacts/distill/model.safetensors")
NETWORKS, PRECISIONS = ("the student", "wider"), ("fp32", "int8")
GAIN = "wider, int8 - the student, fp32"


def run(checkout: Path, folder: Path, seed: int, width: float) -> dict[str, float]:
    """Compare both networks of a seed in an empty folder, on what the last run of a checkout has left.

    Args:
        checkout: whose artifacts are read.
        folder: to work in.
        seed: of initial weights and of the order of the images.
        width: of the wider network, in multiples of the student's.

    Returns:
        Accuracy in percent and KB of each network's files, and the gain in points.

    Raises:
        UserError: there was no run, or its student can't be made wider by its name.
    """
    checkout = checkout.absolute()
    with workspace(checkout, folder):
        params = load_params()
        base, own = small_student(params)
        wide = f"student.model={with_width(base, round(own * width, 4))}"
        student = load(checkout / STUDENT) if seed == params.seed else trained(seed)
        found: dict[str, float] = {}
        for network, model in zip(NETWORKS, (student, trained(seed, wide)), strict=True):
            found |= {f"{network}, {what}": value for what, value in files_of(model).items()}
    return found | {GAIN: found["wider, int8"] - found["the student, fp32"]}


def files_of(model: PixelModel) -> dict[str, float]:
    """Accuracy on the test split, in percent, and KB of a model's ONNX files, by their precision."""
    splits = Path("artifacts/ingest/shards")
    test, train = open_shard(splits / "test"), open_shard(splits / "train")
    source = Source(model.cpu().eval())
    found: dict[str, float] = {}
    for precision in PRECISIONS:
        calibration = files.sample(train.images, CALIBRATION, model.spec) if precision == "int8" else None
        path = Path(f"{precision}.onnx")
        path.write_bytes(onnx.make(source, calibration))
        right = files.load(path).logits(test.images).argmax(axis=1) == test.labels
        found |= {precision: 100 * float(np.mean(right)), f"{precision}, KB": path.stat().st_size / 1024}
    return found


def figures_of(results: Sequence[Mapping[str, float]]) -> list[Figure]:
    """The mean of each result over the seeds."""
    units = {GAIN: "points"}
    return [
        of_seeds(name, [each[name] for each in results], units.get(name, "KB" if name.endswith(", KB") else "%"))
        for name in results[0]
    ]


def section(folder: Path) -> str:
    """The table of the results in a folder, as Markdown."""
    result = read("wider", folder)
    lines = ["| network | file | KB | accuracy |", "| --- | --- | ---: | ---: |"]
    for network in NETWORKS:
        for precision in PRECISIONS:
            size, accuracy = result[f"{network}, {precision}, KB"], result[f"{network}, {precision}"]
            lines.append(f"| {network} | {precision} | {size.value:,.1f} | {accuracy.mean} |")
    return "\n".join([*lines, "", f"{GAIN}: {result[GAIN].mean} points.", "", str(result)])


def main() -> None:
    """Train the networks of each seed, print the table and write the figures."""
    parser = seeds_parser(__doc__)
    parser.add_argument("--width", type=float, default=1.95, help="of the wider network, in multiples of the student's")
    options = parser.parse_args()

    def of_seed(folder: Path, seed: int) -> dict[str, float]:
        return run(options.run, folder, seed, options.width)

    try:
        measure("wider", options.seeds, options.out.absolute(), of_seed, figures_of, section)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
