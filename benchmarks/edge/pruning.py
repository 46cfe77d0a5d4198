"""What pruning costs: a student pruned and healed, against a dense network of its size, on the same soft labels.

    .venv/bin/python -m benchmarks.edge.pruning                             # after `reflux run`; seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.edge.pruning --run CHECKOUT 0 1 2 3 4    # the soft labels of another checkout's run

It needs torch-pruning (``pip install torch-pruning``). Each seed trains the student of the run's params once, and
from it, for each share of channels (``--shares``), networks of one size, all by the soft labels that the run stored:
``pruned`` loses the share and heals for ``--heal`` steps; ``dense`` has as many channels from the beginning, random
weights, and the steps of both training runs together; ``dense, short`` only those of the healing, which is what a team
would spend that wants several sizes quickly. It prints a table and writes ``benchmarks/results/pruning.json``:
accuracies of the frozen test split in percent, at the checkpoint that validation data chose, with Student's t over the
seeds (95 %), after each seed for those so far. Nobody chose the learning rate for pruning: it is the student's. Some
minutes of two idle cores a seed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.edge.students import measure, seeds_parser, small_student, trained, workspace
from benchmarks.harness.results import Figure, of_seeds, read
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from reflux.components.core.inference import validate
from reflux.components.core.params.file import override_params
from reflux.components.modalities.image.models.pixel_model import PixelModel, load, parameter_count, save
from reflux.components.modalities.image.models.small_nets import with_width
from reflux.components.stages.pretrain.pruning import prune

WHOLE = "the whole student"
ARMS = ("pruned", "dense", "dense, short", "pruned - dense")
BIG, START = Path("big.safetensors"), Path("artifacts/pretrain/student/model.safetensors")


def accuracy(model: PixelModel) -> float:
    """Of the frozen test split, in percent."""
    test = open_shard(Path("artifacts/ingest/shards/test"))
    return 100 * validate(model.cpu(), test, torch.device("cpu"))[1]


def run(checkout: Path, folder: Path, seed: int, shares: Sequence[float], heal: int) -> dict[str, float]:
    """Train all networks of a seed in an empty folder, on what the last run of a checkout has left.

    Args:
        checkout: whose artifacts are read.
        folder: to work in.
        seed: of initial weights and of the order of the images; the views are those whose labels are stored.
        shares: of the channels of each layer.
        heal: steps after pruning.

    Returns:
        Parameters and accuracies in percent, by ``WHOLE``, and by share and arm.

    Raises:
        UserError: there was no run, or its student can't be pruned or made narrower by its name.
    """
    with workspace(checkout, folder):
        params = override_params(["student.prune=0", "student.weights=random"])
        settings = params.student
        base, width = small_student(params)
        whole = trained(seed)
        save(whole, BIG)
        found = {WHOLE: accuracy(whole), f"{WHOLE}, parameters": float(parameter_count(whole))}
        for share in shares:
            narrow = f"student.model={with_width(base, round(width * (1 - share), 4))}"
            save(prune(load(BIG), share), START)
            healing = (f"student.weights={BIG}", f"student.prune={share}", f"student.steps={heal}")
            pruned = trained(seed, *healing)
            dense = trained(seed, narrow, f"student.steps={settings.steps + heal}")
            short = trained(seed, narrow, f"student.steps={heal}")
            values = [accuracy(model) for model in (pruned, dense, short)]
            named = dict(zip(ARMS, [*values, values[0] - values[1]], strict=True))
            found |= {f"{share:g}, {arm}": value for arm, value in named.items()}
            sizes = {"pruned": pruned, "dense": dense}
            found |= {f"{share:g}, {arm}, parameters": float(parameter_count(net)) for arm, net in sizes.items()}
    return found


def figures_of(results: Sequence[Mapping[str, float]]) -> list[Figure]:
    """The mean of each result over the seeds."""
    units = {"parameters": "parameters", "pruned - dense": "points"}
    return [
        of_seeds(name, [each[name] for each in results], units.get(name.rpartition(", ")[2], "%"))
        for name in results[0]
    ]


def section(folder: Path) -> str:
    """The table of the results in a folder, as Markdown: a row for each share."""
    result = read("pruning", folder)
    names = [figure.name for figure in result.figures]
    shares = [name.removesuffix(", pruned") for name in names if name.endswith(", pruned")]
    lines = [f"| channels removed | parameters (dense) | {' | '.join(ARMS)} |", f"| --- |{' ---: |' * (len(ARMS) + 1)}"]
    for share in shares:
        own, dense = (result[f"{share}, {arm}, parameters"].value for arm in ("pruned", "dense"))
        cells = [result[f"{share}, {arm}"].mean for arm in ARMS]
        lines.append(f"| {float(share):.0%} | {own:,.0f} ({dense:,.0f}) | {' | '.join(cells)} |")
    whole, parameters = result[WHOLE], result[f"{WHOLE}, parameters"].value
    lines += [
        "",
        f"The whole student: {whole.mean}, {parameters:,.0f} parameters.",
    ]
    return "\n".join([*lines, "", str(result)])


def main() -> None:
    """Train the networks of each seed, print the table and write the figures."""
    parser = seeds_parser(__doc__)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5], help="of the channels to remove")
    parser.add_argument("--heal", type=int, default=500, help="steps after pruning")
    options = parser.parse_args()

    def of_seed(folder: Path, seed: int) -> dict[str, float]:
        return run(options.run, folder, seed, options.shares, options.heal)

    try:
        measure("pruning", options.seeds, options.out.absolute(), of_seed, figures_of, section)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
