"""What a preflight found, kept by everything that decides it: the same params are checked once."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reflux.components.core.contract import FIGURES, kind_of, made
from reflux.components.core.errors import UserError
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.lineage import code_sha256
from reflux.components.registry.policy.gates import Bounds, format_value, gated_figures, sides, within

FACTS = Path(".reflux/preflight")
_PACKAGES = ("torch", "timm", "onnx", "onnxruntime", "onnxscript")


def whole_file(params: Params) -> Path:
    """Where the facts of a preflight with these params are kept.

    Raises:
        UserError: the runtime of the file that ships is not installed.
    """
    sections = params.model_dump(mode="json", by_alias=True)
    run = {name: sections["run"][name] for name in ("device", "placement", "launcher", "nproc_per_node", "nnodes")}
    method = [entry.model_dump() for entry in params.distill.method]
    others: list[Any] = [params.finetune.image_size, params.finetune.strategy, params.student.weights]
    others += [*params.finetune.lora_targets, *_files(params)]
    return _file("run", student_facts(params), sections["pretrain"], sections["distill"], method, run, *others)


def _files(params: Params) -> list[tuple[str, int, int]]:
    """The files of weights that the params name: one that is gone, or was written anew, is looked at again."""
    named = map(Path, (params.pretrain.weights, params.student.weights, *params.distill.teachers))
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in named if file.is_file()]


def student_file(params: Params) -> Path:
    """Where the facts of the student's export are kept, whatever the rest of the params is."""
    return _file("student", student_facts(params))


def student_facts(params: Params) -> list[Any]:
    """The params that decide how the student is exported, and whether it can be."""
    student, tolerance = params.student, params.compress.max_logit_difference
    network = [student.model, student.prune, student.image_size, params.ingest.channels]
    return [*network, tolerance, runtimes(params.compress.ships)]


def runtimes(ships: str) -> dict[str, str]:
    """The files that are made but to be named, ``compress.ships``, with the releases of their runtimes.

    Raises:
        UserError: one is not installed.
    """
    named = {kind: file.format for kind, file in made(ships).items() if file.format.extra}
    return {kind: each.installed(f"compress.ships = {ships}") for kind, each in named.items()}


def _file(kind: str, *parts: Any) -> Path:
    code = code_sha256("advice.preflight", "core.params")
    packages = [version(package) for package in _PACKAGES]
    key = hashlib.sha256(json.dumps([code, packages, parts]).encode()).hexdigest()
    return FACTS / f"{kind}-{key[:32]}.json"


def refuse_hopeless_gates(facts: Mapping[str, Any], gates: Bounds, student: str, ships: str) -> None:
    """Stop where the student's file is larger than a gate allows before it has learned anything.

    Args:
        facts: ``size_bytes`` and ``params`` of the exported student; with more classes it only grows.
        gates: ``registry.gates``.
        student: ``student.model``.
        ships: ``compress.ships``.

    Raises:
        UserError: it is.
    """
    sizes = facts["size_bytes"]
    size = min(sizes.values()) if ships == "auto" else sizes[kind_of(ships)]
    least = {**facts, "size_bytes": size}
    figures = gated_figures({"shipped": {"onnx": least}})
    for name, side, limit in sides(gates):
        if side == "max" and name in figures and not within(figures[name], side, limit):
            unit = f" {FIGURES[name].unit}".rstrip()
            raise UserError(
                f"registry.gates.{name}.max = {format_value(limit)} can't be passed: {FIGURES[name].label.lower()} of "
                f"student.model = {student} is {format_value(figures[name], limit)}{unit} or more as the file that "
                f"ships; raise registry.gates.{name}.max in params.yaml, or choose a smaller student.model."
            )
