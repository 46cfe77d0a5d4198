"""Run a pair of the CIFAR-100 tables through the whole pipeline; see this folder's README."""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.harness.checkout import accuracies, copy_checkout, reflux_run
from benchmarks.harness.results import ROOT
from reflux.components.core.params.distill import METHODS
from reflux.components.core.params.file import override_params
from reflux.components.core.params.sections import Params
from reflux.components.modalities.image.models.pixel_model import network, parameter_count

PAIRS = ("resnet56:resnet20", "resnet110:resnet32", "resnet32x4:resnet8x4", "wrn_40_2:wrn_16_2", "vgg13_cifar:vgg8")
# The authors' entries for CIFAR-100 that are not the method's defaults; dkd's beta is by pair (mdistiller's configs).
_STAGES = '["stage:-3", "stage:-2", "stage:-1"]'
ENTRIES = {
    "kd": "{name: kd, temperature: 4, weight: 0.9}",
    "attention-transfer": f"{{name: attention-transfer, student: {_STAGES}, teacher: {_STAGES}}}",
}
BETAS = dict(zip(PAIRS, (2, 2, 8, 6, 6), strict=True))


def assignments(pair: str, method: str) -> list[str]:
    """The ``-S`` assignments of a pair and a method."""
    protocol = YAML(typ="safe").load((Path(__file__).parent / "protocol.yaml").read_text(encoding="utf-8"))
    flat = [f"{section}.{key}={json.dumps(value)}" for section, keys in protocol.items() for key, value in keys.items()]
    teacher, student = pair.split(":")
    entry = f"{{name: dkd, beta: {BETAS[pair]}}}" if method == "dkd" else ENTRIES.get(method, method)
    return [*flat, f"pretrain.model={teacher}", f"student.model={student}", f"distill.method={entry}"]


def dry_run(folder: Path) -> list[tuple[str, str, Params]]:
    """Check every pair and method as far as possible without data: the params are valid, the networks are built."""
    checked = []
    for pair in PAIRS:
        for net in pair.split(":"):
            network(net, 100, 3)
        for method in METHODS:
            file = folder / "params.yaml"
            shutil.copy(ROOT / "params.yaml", file)
            checked.append((pair, method, override_params(assignments(pair, method), file)))
    return checked


def main() -> None:
    """Run a pair with a method, or check all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="CIFAR-100 as ingest.source; see benchmarks/README.md")
    parser.add_argument("--pair", choices=PAIRS, default="resnet32x4:resnet8x4")
    parser.add_argument("--method", choices=METHODS, default="kd")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="check that every pair and method would run")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="reflux-cifar100-"))
    if options.dry_run:
        for pair, method, params in dry_run(folder):
            sizes = [parameter_count(network(net, 100, 3)) for net in pair.split(":")]
            print(f"{pair} {method}: {sizes[0]:,} and {sizes[1]:,} parameters, {params.student.steps:,} steps")
        shutil.rmtree(folder)
        return
    if options.data is None or not options.data.exists():
        sys.exit("Error: name CIFAR-100 with --data, in a layout that ingest.source takes.")
    checkout = copy_checkout(folder)
    source = [f"ingest.source={options.data.resolve()}", f"seed={options.seed}"]
    reflux_run(checkout, [*assignments(options.pair, options.method), *source])
    for name, accuracy in accuracies(checkout).items():
        print(f"{name}: {accuracy:.2f} %")
    print(f"Kept: {checkout}")


if __name__ == "__main__":
    main()
