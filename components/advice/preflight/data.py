"""What the data rules out, before anything is trained: rounds without images, methods for more classes, and so on.

``python -m reflux.components.advice.preflight.data`` checks it where ``ingest`` has run, and ends with 0, or with 2
and one sentence.
"""

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.contract import FIGURES, SLICE
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import load_params
from reflux.components.core.params.sections import Params
from reflux.components.registry.policy import gates, slices
from reflux.components.registry.policy.gates import Reason
from reflux.components.stages.distill import possible
from reflux.components.stages.finetune.strategy import refuse_no_labels, refuse_nothing_to_learn_from
from reflux.components.stages.pretrain.possible import refuse_no_images

_BEST = {"min": 1.0, "max": 0.0}


def check_ingested(params: Params) -> None:
    """Check the params by what ``ingest`` has left.

    Raises:
        UserError: training would end in an error, or nothing can pass the gates.
    """
    dataset = read_json(ARTIFACTS / "ingest" / "dataset.json")
    counts = slice_counts(ARTIFACTS / "ingest" / "manifest.parquet", params.registry.slices.gates)
    finetune = params.finetune
    refuse_nothing_to_learn_from(finetune.rounds, finetune.adaptation, dataset["counts"]["unlabeled"])
    refuse_no_images(params.pretrain.mode, dataset["counts"]["unlabeled"])
    labeled = dataset["counts"]["train"]
    refuse_no_labels(finetune.strategy, labeled)
    possible.refuse_no_labels(params.distill, labeled)
    if params.registry.gates.gain and not labeled:
        raise UserError(
            "registry.gates.gain compares the student with a control that learns labels, and no training image has "
            "one: take the gate out of params.yaml."
        )
    check_data(params, len(dataset["classes"]), dataset["counts"]["test"], counts)


def check_data(params: Params, classes: int, test_images: int, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Stop where the method is not made for so few classes, or where no student could pass a gate on so few images.

    Args:
        params: all of them.
        classes: their number.
        test_images: likewise.
        counts: of test images by slice, as :func:`slice_counts` gives them for ``registry.slices.gates``.

    Raises:
        UserError: training would end in an error, or nothing can pass the gates.
    """
    possible.refuse_few_classes(params.distill.method, classes)
    rules = params.registry.model_dump(exclude_none=True)
    for name, bound in rules["gates"].items():
        if "confidence" in bound:
            for side in _BEST.keys() & bound.keys():
                best = _best_metrics(_BEST[side], test_images)
                (reason,) = gates.thresholds(best, {name: {side: bound[side], "confidence": bound["confidence"]}})
                _refuse(f"registry.gates.{name}.{side}", reason)
    limits, least = rules["slices"]["gates"], rules["slices"]["min_count"]
    for column, bounds in limits.items():
        for figure, side, limit in gates.sides(bounds):
            parts = {name: {"n": n, figure: _BEST[side]} for name, n in counts[column].items()}
            asked = {figure: {**{key: value for key, value in bounds[figure].items() if key not in _BEST}, side: limit}}
            (reason,) = slices.reasons({column: parts}, {column: asked}, least)
            _refuse(f"registry.slices.gates.{column}.{figure}.{side}", reason)


def slice_counts(manifest: Path, columns: Collection[str]) -> dict[str, dict[str, int]]:
    """The number of test images of each slice by column, from ingest's ``manifest.parquet``."""
    import pyarrow.parquet as pq

    names = {column: "class_name" if column == "class" else f"{SLICE}{column}" for column in columns}
    table = pq.read_table(manifest, columns=[*names.values()], filters=[("split", "=", "test")])
    parts = {column: table[name].value_counts().to_pylist() for column, name in names.items()}
    return {column: {str(part["values"]): part["counts"] for part in each} for column, each in parts.items()}


def _best_metrics(share: float, test_images: int) -> dict[str, Any]:
    """The figures of a student than which none is better: all test images right (1) or wrong (0)."""
    wins, losses = round(share * test_images), round((1 - share) * test_images)
    figures = {name: share for name, figure in FIGURES.items() if figure.share}
    gain = {"accuracy": 2 * share - 1, "wins": wins, "losses": losses}
    return {"shipped": {"onnx": figures}, "gain": gain, "test": {"n": test_images}}


def _refuse(param: str, reason: Reason) -> None:
    if not reason.passed:
        raise UserError(
            f"{param} can't be passed. Of the best student possible the decision would say: {reason.sentence} Add test "
            "images, or ask for less in params.yaml."
        )


if __name__ == "__main__":
    try:
        check_ingested(load_params())
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(EXIT_USER_ERROR)
