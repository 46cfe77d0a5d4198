"""The tables of the reference, made from the params' models, the table of stages, ``dvc.yaml`` and the command."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from reflux.components.core.contract import FIGURES, FILES, FORMATS, STAGES
from reflux.components.core.params.comments import comments_of
from reflux.components.core.params.distill import METHODS
from reflux.components.core.params.section import Section
from reflux.components.core.params.sections import Params
from reflux.components.core.params.training import Training

_MARKER = re.compile(r"<!-- generated: (\w+) -->")
_WORDS = {
    "boolean": "`true` \\| `false`",
    "integer": "a whole number",
    "null": "`null`",
    "number": "a number",
    "object": "a section",
    "string": "text",
}
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")


def filled(text: str, root: Path) -> str:
    """Put the generated blocks in the place of their markers.

    Args:
        text: a page.
        root: of the repository.
    """
    return _MARKER.sub(lambda match: BLOCKS[match[1]](root), text)


def without_roles(html: str) -> str:
    """Leave out Sphinx's roles, such as ``:func:``."""
    return _ROLE.sub("", html)


@dataclass(frozen=True)
class Row:
    """A param.

    Attributes:
        name: with its section.
        value: what ``params.yaml`` says; None if it leaves the param out.
        default: what then holds; None if it must be given.
        values: those that it may have, in words.
        reason: its comment.
    """

    name: str
    value: str | None
    default: str | None
    values: str
    reason: str


def rows(text: str) -> list[Row]:
    """All params, in the order of their models.

    Args:
        text: of ``params.yaml``.
    """
    whole = Params.model_json_schema()
    return list(_rows("", Params, PydanticUndefined, YAML(typ="safe").load(text), comments_of(text), whole))


def _rows(
    prefix: str,
    model: type[BaseModel],
    default: Any,
    values: Any,
    comments: Mapping[str, str],
    whole: Mapping[str, Any],
) -> Iterator[Row]:
    """The params of a section and of those in it; ``whole`` is the schema of all params."""
    own = whole if model is Params else whole["$defs"][model.__name__]
    for name, field in model.model_fields.items():
        key = field.alias or name
        preset = getattr(default, name) if isinstance(default, BaseModel) else field.default
        given = isinstance(values, Mapping) and key in values
        value = values[key] if given else None
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _rows(f"{prefix}{key}.", field.annotation, preset, value, comments, whole)
            continue
        yield Row(
            name=prefix + key,
            value=_yaml(value) if given else None,
            default=None if preset is PydanticUndefined else _yaml(preset),
            values=_values(own["properties"][key], whole),
            reason=_reason(prefix + key, model, field.description, comments),
        )


def params(root: Path) -> str:
    """Each section of ``params.yaml``: its params with their values, defaults and comments."""
    text = (root / "params.yaml").read_text(encoding="utf-8")
    comments = comments_of(text)
    lines: list[str] = []
    everything = rows(text)
    shown = {row.name for row in everything} | {row.reason for row in everything}
    for section, group in groupby(everything, key=lambda row: row.name.split(".")[0]):
        lines += ["", f"## {section}", ""]
        for name, comment in comments.items():  # of the section, and of sections in it
            if name.split(".")[0] == section and not {name, comment} & shown:
                lines += [_cell(_sentence(comment if name == section else f"`{name}`: {comment}")), ""]
        lines += ["| param | value | default | may be | |", "| --- | --- | --- | --- | --- |"]
        said = ""
        for row in group:  # params that share a comment show it once
            reason, said = ("" if row.reason == said else row.reason), row.reason
            cells = (_code(row.name), _code(row.value), _code(row.default), row.values, _cell(reason))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _reason(name: str, model: type[BaseModel], description: str | None, comments: Mapping[str, str]) -> str:
    """The comment of a param; else what its model, the figure that it gates or ``finetune`` says of it."""
    if name in comments:
        return comments[name]
    section, *inner, leaf = name.split(".")
    if said := _attributes(model).get(leaf) or description:
        return said
    if inner == ["gates"]:
        return FIGURES[leaf].label
    shared = f"finetune.{leaf}" if not inner and leaf in Training.model_fields else name.removesuffix(f".{leaf}")
    return comments.get(shared, "") if inner or shared != section else ""


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a model and its parents say of its attributes."""
    said: dict[str, str] = {}
    for each in reversed(model.__mro__):
        _, _, text = (each.__doc__ or "").partition("Attributes:\n")
        for name, words in re.findall(r"^ {8}(\w+): (.*(?:\n {9,}.*)*)", text, re.MULTILINE):
            said[name] = " ".join(words.split())
    return said


def _values(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What a param may be, in words."""
    if "$ref" in schema:
        return _values(whole["$defs"][schema["$ref"].rsplit("/", 1)[1]], whole)
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_values(one, whole) for one in alternatives))
    if "enum" in schema or "const" in schema:
        return " \\| ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return "a range"
    if schema.get("type") == "array":
        inner = _values(schema.get("items", {}), whole)
        return f"a list of {inner}" if inner != _WORDS["object"] else "a list"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    return f"{_WORDS[schema.get('type', 'object')]} {' and '.join(limits)}".strip()


def methods(_: Path) -> str:
    """The entries of ``distill.method`` with their params."""
    lines = ["| name | params with their defaults | source |", "| --- | --- | --- |"]
    for name, method in METHODS.items():
        settings = [
            f"`{key}`" if field.is_required() else f"`{key}: {_yaml(field.default)}`"
            for key, field in method.model_fields.items()
            if key != "name"
        ]
        lines.append(f"| `{name}` | {', '.join(settings)} | {_cell(_first_line(method.__doc__))} |")
    return "\n".join(lines)


def stages(root: Path) -> str:
    """The files that each stage leaves, from ``dvc.yaml``."""
    pipeline = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    lines = ["| stage | reads | leaves |", "| --- | --- | --- |"]
    for name in STAGES:
        entry = pipeline[name]
        reads = [dep for dep in entry["deps"] if dep.startswith(("artifacts/", "$"))]
        outs = [out if isinstance(out, str) else next(iter(out)) for out in entry["outs"] + entry.get("metrics", [])]
        lines.append(f"| `{name}` | {_files(reads)} | {_files(outs)} |")
    return "\n".join(lines)


def figures(_: Path) -> str:
    """The figures that a gate can bound."""
    lines = ["| gate | figure | unit |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| `{name}` | {one.label} | {one.unit} |" for name, one in FIGURES.items()])


def formats(_: Path) -> str:
    """The files that ``compress`` makes of the student."""
    lines = ["| kind | file in `artifacts/compress/` | format | runtime | extra |", "| --- | --- | --- | --- | --- |"]
    for kind, file in FILES.items():
        extra = f"`{file.format.extra}`" if file.format.extra else ""
        lines.append(f"| `{kind}` | `{file.name}` | {file.label} | {file.format.runtime} | {extra} |")
    assert len(lines) > len(FORMATS)  # noqa: S101 - each format has a file
    return "\n".join(lines)


def commands(_: Path) -> str:
    """The command's help, by Typer's own generator."""
    import typer
    from typer.cli import get_docs_for_click

    from reflux.flows.cli import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="reflux")
    text = re.sub(r"^Example: (.*)$", r"Example: `\1`", text, flags=re.MULTILINE)
    # Typer's own page begins with a title, which the site's page has already.
    return text.split("\n", 2)[2].replace("\b", "")


def _files(paths: list[str]) -> str:
    return "<br>".join(f"`{path.removeprefix('artifacts/')}`" for path in paths)


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n\n")[0].replace("\n", " ")


def _sentence(comment: str) -> str:
    return comment if comment.endswith((".", ":")) else f"{comment}."


def _code(text: str | None) -> str:
    return "" if text is None else f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _yaml(value: Any) -> str:
    """A value as a line of ``params.yaml`` has it."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(one) for one in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


BLOCKS: dict[str, Callable[[Path], str]] = {
    function.__name__: function for function in (commands, figures, formats, methods, params, stages)
}
