"""What the files of a student cost and lose: fp32 and int8, each in its own runtime, for three networks.

    .venv/bin/python -m benchmarks.edge                 # after `reflux run`: its student
    .venv/bin/python -m benchmarks.edge --run CHECKOUT  # the student of another checkout's last run

The default student is the one that the run trained, with its accuracy on the whole test split. ``resnet8x4`` and
``mobilenetv3_small_100`` (64 pixels, three channels) have random weights and the BatchNorm statistics of images: their
bytes and times mean something, their answers would not. ``int8, defaults`` is what onnxruntime's
``quantize_static`` makes without a choice of ours: int8 activations, one scale a tensor, 8-bit weights, ranges from the
same images. ``int4 weights`` has 4-bit weights with a scale for each output channel, and uint8 activations. Times are
those of ``reflux bench``: of the processor, in multiples of the ONNX fp32 file's, run in turn, the median of 15 rounds
and its interval. Files of other runtimes are measured where these are installed
(``pip install 'reflux[executorch,litert,openvino]'``). It prints the table and writes
``benchmarks/results/edge.json``.
"""

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.harness.results import ROOT, Figure, Result, argument_parser, read, write
from reflux.components.bench.measure import measure
from reflux.components.bench.report import Row
from reflux.components.core import contract
from reflux.components.core.errors import UserError
from reflux.components.core.export import program, quantize
from reflux.components.core.export.network import MODULES, sample
from reflux.components.core.images.shards import Pixels, Shard, open_shard
from reflux.components.core.models.pixel_model import PixelModel, load, pixel_model
from reflux.components.preflight.rehearsal import as_if_trained

STUDENT = "the default student"
OTHERS = {"resnet8x4": (28, 1), "mobilenetv3_small_100": (64, 3)}  # image size and channels
FILES = {"onnx": "ONNX, fp32", "int8": "ONNX, int8", "defaults": "ONNX, int8, defaults"}
FILES |= {"int4": "ONNX, int4 weights", "pt2": "torch.export, fp32"}
OTHER_RUNTIMES = {kind: file for kind, file in contract.FILES.items() if file.format.extra}
BATCHES = (1, 8)
CALIBRATION, STATISTICS, ASKED = 512, 64, 1000
Writer = Callable[[PixelModel, Pixels, Path], dict[str, Path]]


def untrained(name: str, image_size: int, channels: int, train: Shard, classes: int) -> PixelModel:
    """A network with random weights, and BatchNorm statistics of training images."""
    torch.manual_seed(0)
    names = tuple(map(str, range(classes)))
    model = pixel_model(name, names, image_size, channels, (0.28,) * channels, (0.35,) * channels)
    as_if_trained(model, sample(train.images, STATISTICS, model.spec))
    return model


def write_files(model: PixelModel, calibration: Pixels, folder: Path, others: Iterable[str] = ()) -> dict[str, Path]:
    """Write a model as each of ``FILES``, and as ``others`` of ``OTHER_RUNTIMES``, by their names for people."""
    source = program.Source(model.eval())
    translated = source.translated
    ready, defaults, int4 = (folder / f"{name}.onnx" for name in ("ready", "defaults-whole", "int4-whole"))
    onnx.save(translated, ready)
    quant_pre_process(ready, ready, skip_optimization=True, skip_symbolic_shape=True)
    quantize_static(ready, defaults, quantize.Batches(calibration))
    quantize_static(
        ready,
        int4,
        quantize.Batches(calibration),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt4,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
    )
    models = {"onnx": translated, "int8": quantize.int8(translated, calibration), "defaults": onnx.load(defaults)}
    models["int4"] = onnx.load(int4)
    paths = {kind: folder / f"{kind}.onnx" for kind in models} | {"pt2": folder / "student.pt2"}
    for kind, each in models.items():
        onnx.save(program.slim(each, model.spec.classes), paths[kind])
    torch.export.save(source.exported, paths["pt2"])
    files = {FILES[kind]: path for kind, path in paths.items()}
    for kind in others:
        file = OTHER_RUNTIMES[kind]
        files[file.label] = path = folder / Path(file.name).name
        path.write_bytes(MODULES[path.suffix].make(source, calibration if file.precision == "int8" else None))
    return files


def installed() -> list[str]:
    """Those of ``OTHER_RUNTIMES`` that can be run here."""
    kinds = []
    for kind, file in OTHER_RUNTIMES.items():
        with suppress(PackageNotFoundError):
            version(file.format.runtime)
            kinds.append(kind)
    return kinds


def measured(run: Path, write_files: Writer) -> Iterator[tuple[str, Sequence[Row]]]:
    """Measure the files of each network, on the test images of a run.

    Args:
        run: the checkout whose student and images are taken.
        write_files: writes a model's files into a folder, the one that the others are compared with first.

    Raises:
        UserError: there was no run.
    """
    shards = run / "artifacts/ingest/shards"
    train, test = open_shard(shards / "train"), open_shard(shards / "test")
    student = load(run / "artifacts/distill/model.safetensors")
    some = np.linspace(0, len(test.labels) - 1, min(ASKED, len(test.labels))).round().astype(np.int64)
    few = Shard(np.asarray(test.images[some]), test.labels[some], test.ids[some])
    classes = student.spec.classes
    networks = {STUDENT: (student, test)}
    networks |= {name: (untrained(name, *shape, train, len(classes)), few) for name, shape in OTHERS.items()}
    for name, (model, images) in networks.items():
        with tempfile.TemporaryDirectory() as folder:
            files = write_files(model, sample(train.images, CALIBRATION, model.spec), Path(folder))
            print(f"{name} …", flush=True)
            yield name, measure(files, images, classes, (1,), BATCHES, "edge").rows


def figures_of(network: str, rows: Sequence[Row]) -> list[Figure]:
    """The figures of a network's files."""
    figures = []
    for row in rows:
        facts = {"KB": (row.size_bytes / 1024, "KB")}
        if network == STUDENT:
            facts |= {"accuracy": (100 * row.accuracy, "%"), "agreement": (100 * row.agreement, "%")}
        facts |= {"load": (row.load_ms, "ms"), "peak": (row.peak_mb or math.nan, "MB")}
        figures += [
            Figure(f"{network}, {row.name}, {what}", round(v, 2), round(v, 2), round(v, 2), unit)
            for what, (v, unit) in facts.items()
        ]
        for speed in row.speeds:
            name = f"{network}, {row.name}, CPU time, batch {speed.batch}"
            cpu, low, high = (round(each, 3) for each in (speed.cpu, speed.cpu_low, speed.cpu_high))
            figures.append(Figure(name, cpu, low, high, "x"))
    return figures


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    return table(read("edge", folder), (*FILES.values(), *(file.label for file in OTHER_RUNTIMES.values())))


def table(result: Result, names: Sequence[str]) -> str:
    """The networks' files in a table, as Markdown.

    Args:
        result: the figures.
        names: of the files, in the order of the rows; those that were not measured are left out.
    """
    heads = ["KB", "accuracy", "agreement", *(f"CPU time, batch {batch}" for batch in BATCHES), "load ms", "peak MB"]
    lines = [f"| network | file | {' | '.join(heads)} |", f"| --- | --- |{' ---: |' * len(heads)}"]
    for network in (STUDENT, *OTHERS):
        for file in (name for name in names if f"{network}, {name}, KB" in result):
            figures = {what: result[f"{network}, {file}, {what}"] for what in _whats(network)}
            cells = [_cell(figures.get(what)) for what in ("KB", "accuracy", "agreement")]
            cells += [_cell(figures[f"CPU time, batch {batch}"]) for batch in BATCHES]
            cells += [f"{figures[what].value:,.0f}" for what in ("load", "peak")]
            lines.append(f"| {network} | {file} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", str(result)])


def _whats(network: str) -> list[str]:
    answers = ["accuracy", "agreement"] if network == STUDENT else []
    return ["KB", *answers, "load", "peak", *(f"CPU time, batch {batch}" for batch in BATCHES)]


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.unit == "x":
        return f"{figure.value:.2f} ({figure.low:.2f} … {figure.high:.2f})" if figure.low < figure.high else "1"
    return f"{figure.value:,.1f}" if figure.unit == "KB" else f"{figure.value:.2f}"


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


if __name__ == "__main__":
    run_benchmark("edge", __doc__, partial(write_files, others=installed()), section)
