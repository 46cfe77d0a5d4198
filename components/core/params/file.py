"""Read, override in place and check ``params.yaml``; an error is one sentence."""

import difflib
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarfloat import ScalarFloat

from reflux.components.core.artifacts import atomic
from reflux.components.core.errors import UserError, listed
from reflux.components.core.params import extensions, releases
from reflux.components.core.params.comments import with_comments
from reflux.components.core.params.distill import METHODS
from reflux.components.core.params.section import Section
from reflux.components.core.params.sections import Params
from reflux.components.core.project import instead, root

PARAMS = Path("params.yaml")
_LONGEST = 200  # characters of what the user wrote, in a sentence

_TEXT = "it must be text, in quotes if it looks like a number or a date"
_LIST = "it must be a list, such as [a, b]"
_REASONS = {  # by pydantic's type of error; what is in braces is pydantic's too
    "bool_parsing": "it must be true or false",
    "bool_type": "it must be true or false",
    "dict_type": "it is a section with a part for each name, such as {{name: …}}",
    "finite_number": "it must be a finite number",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "greater_than": "it must be above {gt:.10g}",
    "greater_than_equal": "it must be {ge:.10g} or more",
    "int_from_float": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_parsing_size": "it must be a whole number",
    "int_type": "it must be a whole number",
    "less_than": "it must be below {lt:.10g}",
    "less_than_equal": "it must be {le:.10g} or less",
    "invalid_key": "the name of a param must be text",
    "list_type": _LIST,
    "literal_error": "choose {expected}",
    "string_pattern_mismatch": "it must be letters, digits, dots, dashes and underscores, a letter or digit first",
    "string_too_short": "it must not be empty",
    "string_type": _TEXT,
    "too_long": "it must have {max_length} values or fewer",
    "too_short": "it must not be empty",
    "tuple_type": _LIST,
}


def load_params(path: Path = PARAMS) -> Params:
    """Parse and check the params file.

    Raises:
        UserError: the file is missing, is not YAML, or has an unknown, mistyped or absent key.
    """
    return check_params(_read(path), str(path))


def override_params(assignments: list[str], path: Path = PARAMS, comments: Mapping[str, str] | None = None) -> Params:
    """Apply ``section.key=value`` assignments to the file in place.

    The file is written only when the result is valid.

    Args:
        assignments: the params to set.
        path: the file.
        comments: for params of the file, each in place of the one that stood there; all others stay.

    Raises:
        UserError: an assignment is malformed or leads to invalid params.
    """
    text, params = overridden(assignments, path)
    text = with_comments(text, comments) if comments else text
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return params


def overridden(assignments: list[str], path: Path = PARAMS) -> tuple[str, Params]:
    """The text of the file with ``section.key=value`` assignments applied, its comments kept, and what it says.

    Raises:
        UserError: as for ``override_params``.
    """
    document, params = _overridden(assignments, path)
    text = io.StringIO()
    _yaml().dump(document, text)
    return text.getvalue(), params


def check_overrides(assignments: list[str], path: Path = PARAMS) -> Params:
    """Parse and check the params with ``section.key=value`` assignments; the file stays as it is.

    Raises:
        UserError: as for ``override_params``, or ``load_params`` if there are no assignments.
    """
    return _overridden(assignments, path)[1]


def _overridden(assignments: list[str], path: Path) -> tuple[Any, Params]:
    document = _read(path)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        shown = f"-S {_short(' '.join(assignment.split()))}"
        if not equals or not key.strip():
            raise UserError(f"{shown} is not of the form section.key=value, for example -S student.steps=2000.")
        *parents, leaf = key.strip().split(".")
        node = document
        for parent in parents:
            if isinstance(node, dict) and node.get(parent) is None:  # a gate that is null becomes one
                node[parent] = {}
            node = node[parent] if isinstance(node, dict) else None
        if shared := [name for name, each in _sections(document) if each is node and name != ".".join(parents)]:
            raise UserError(
                f"{shown}: {'.'.join(parents)} and {shared[0]} are one section in {path}, by an anchor and its "
                "alias: write both out, or both would change."
            )
        if not isinstance(node, dict):
            raise UserError(f"{shown}: {'.'.join(parents)} holds a value, not a section of {path}.")
        try:
            node[leaf] = _yaml().load(text)
        except (YAMLError, ValueError) as error:
            raise UserError(
                f"{shown}: the value is not valid YAML ({_parser_words(error)}); close its "
                "brackets, or put it in quotes."
            ) from None
    return document, check_params(document, "-S" if assignments else str(path))


def _sections(document: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Each section of a document, at any depth, with its name."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield (inner := f"{name}.{key}".lstrip(".")), value
            yield from _sections(value, inner)


def check_params(document: Any, where: str) -> Params:
    """Validate a parsed document, and say in one sentence what is wrong with it.

    Raises:
        UserError: the first problem, with the nearest known name for an unknown key.
    """
    extensions.load()
    try:
        params = Params.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{where}: {_sentence(error)}") from None
    for column in params.registry.slices.gates:
        if column not in ("class", *params.ingest.slices):
            raise UserError(f"{where}: registry.slices.gates.{column} is not measured; name {column} in ingest.slices.")
    return params


class _Representer(RoundTripRepresenter):
    """Writes null as ``null``, where ruamel leaves it empty, and numbers whole, where it may lose the last digit."""

    def represent_scalar_float(self, data: ScalarFloat) -> Any:
        node = super().represent_scalar_float(data)
        is_whole = not math.isfinite(data) or float(node.value) == data
        return node if is_whole else self.represent_float(float(data))


_Representer.add_representer(ScalarFloat, _Representer.represent_scalar_float)
_Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def _yaml() -> YAML:
    # YAML 1.2, as DVC reads the same file: PyYAML would take 1e-3 for a string.
    yaml = YAML(typ="rt")
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def _read(path: Path) -> Any:
    releases.refuse_newer(root(path.parent))
    return read(path)[1]


def read(path: Path) -> tuple[str, Any]:
    """The text of a params file of any release, and what it holds.

    Raises:
        UserError: the file is missing, not YAML, or holds no sections.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = _yaml().load(text)
    except FileNotFoundError:
        raise UserError(f"{path} is missing in {Path.cwd().name}/: {instead()}.") from None
    except OSError as error:  # a link to itself, say
        raise UserError(f"{path} can't be read ({error.strerror}): restore it with `git checkout {path}`.") from None
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}," if mark else str(path)
        raise UserError(f"{where} is not valid YAML: {_parser_words(error)}.") from None
    if not isinstance(document, dict):
        what = "is empty" if document is None else "holds no sections of params"
        raise UserError(f"{path} {what}: restore it with `git checkout {path}`.")
    return text, document


def _parser_words(error: Exception) -> str:
    """The problem in the YAML parser's words, on one line."""
    words = " ".join(str(getattr(error, "problem", None) or error).split())
    return _short(words.partition(" with value ")[0])  # of a key that is there twice: a Python object


def _short(text: str) -> str:
    """A part of a file or of a command line, of a length that a sentence can have."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _sentence(error: ValidationError) -> str:
    first = min(error.errors(), key=lambda problem: problem["type"] == "missing")  # a typo leaves its name missing too
    location = first["loc"]
    if location and location[-1] in ("int", "str"):  # the part of a union that pydantic tried first
        location = location[:-1]
    place = _short(".".join(str(part) for part in location))
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _siblings(first["loc"]), n=1, cutoff=0.5)
        prefix = ".".join(str(part) for part in first["loc"][:-1])
        known = f"did you mean {'.'.join(filter(None, [prefix, near[0]]))}?" if near else "delete it."
        return f"{place} is not a parameter; {known}"
    if first["type"] == "missing":
        return f"{place} is missing; add it."
    why, given = reason(first, location), first.get("input")
    why = why if why.endswith("?") else f"{why}."
    if isinstance(given, dict):  # what is wrong is how its parts go together
        return f"{place}: {why}" if place else why
    return f"{place} = {_as_written(given)} is refused: {why}"


def reason(problem: ErrorDetails, location: tuple[Any, ...] = ()) -> str:
    """Say what a param or an option must be, in pydantic's words only where the problem is a rare one."""
    if problem["type"] == "model_type":
        return f"it is a section; set its params instead: {listed(_siblings((*location, '')), 6)}"
    if problem["type"] in _REASONS:
        return _REASONS[problem["type"]].format(**problem.get("ctx", {})).replace("'", "")
    return problem["msg"].removeprefix("Value error, ")


def _as_written(value: Any) -> str:
    """A value as YAML has it: null, true."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return _short(repr(value) if isinstance(value, str | int | float | list) else str(value))


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
