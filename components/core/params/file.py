"""Read, override in place and check ``params.yaml``; an error is one sentence."""

import difflib
import io
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from components.core.artifacts import atomic
from components.core.errors import UserError
from components.core.params.distill import METHODS
from components.core.params.section import Section
from components.core.params.sections import Params

PARAMS = Path("params.yaml")


def load_params(path: Path = PARAMS) -> Params:
    """Parse and check the params file.

    Raises:
        UserError: the file is missing, is not YAML, or has an unknown, mistyped or absent key.
    """
    return check_params(_read(path), str(path))


def override_params(assignments: list[str], path: Path = PARAMS) -> Params:
    """Apply ``section.key=value`` assignments to the file in place, its comments kept.

    The file is written only when the result is valid.

    Raises:
        UserError: an assignment is malformed or leads to invalid params.
    """
    document = _read(path)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f"-S {assignment} is not of the form section.key=value, for example -S student.steps=2000.")
        *parents, leaf = key.strip().split(".")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise UserError(f"-S {assignment}: {'.'.join(parents)} holds a value, not a section of {path}.")
        node[leaf] = _yaml().load(text)
    params = check_params(document, "-S")
    text_out = io.StringIO()
    _yaml().dump(document, text_out)
    with atomic(path) as temporary:
        temporary.write_text(text_out.getvalue(), encoding="utf-8")
    return params


def check_params(document: Any, where: str) -> Params:
    """Validate a parsed document, and say in one sentence what is wrong with it.

    Raises:
        UserError: the first problem, with the nearest known name for an unknown key.
    """
    try:
        params = Params.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{where}: {_sentence(error)}") from None
    for column in params.registry.slices.gates:
        if column not in ("class", *params.ingest.slices):
            raise UserError(f"{where}: registry.slices.gates.{column} is not measured; name {column} in ingest.slices.")
    return params


class _Representer(RoundTripRepresenter):
    """Writes null as ``null``, where ruamel leaves an empty value."""


_Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def _yaml() -> YAML:
    # YAML 1.2, as DVC reads the same file: PyYAML would take 1e-3 for a string.
    yaml = YAML(typ="rt")
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def _read(path: Path) -> Any:
    try:
        document = _yaml().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing in {Path.cwd().name}/: run reflux in the project's root folder.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        first = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML: {first}.") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} is empty: restore it with `git checkout {path}`.")
    return document


def _sentence(error: ValidationError) -> str:
    first = min(error.errors(), key=lambda problem: problem["type"] == "missing")  # a typo leaves its name missing too
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _siblings(first["loc"]), n=1, cutoff=0.5)
        prefix = ".".join(str(part) for part in first["loc"][:-1])
        known = f"did you mean {'.'.join(filter(None, [prefix, near[0]]))}?" if near else "delete it."
        return f"{place} is not a parameter; {known}"
    if first["type"] == "missing":
        return f"{place} is missing; add it."
    why, given = first["msg"].removeprefix("Value error, "), first.get("input")
    if isinstance(given, dict):  # what is wrong is how its parts go together
        return f"{place}: {why}." if place else f"{why}."
    return f"{place} = {given!r} is refused: {why}."


def _siblings(location: tuple[Any, ...]) -> list[str]:
    """The known keys next to an unknown one."""
    model: Any = Params
    for part in location[:-1]:
        if part in METHODS:
            model = METHODS[part]
            continue
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            continue  # a key that the user names, as a column of slices
        annotations = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((a for a in annotations if isinstance(a, type) and issubclass(a, Section)), model)
    return [field.alias or name for name, field in model.model_fields.items()]
