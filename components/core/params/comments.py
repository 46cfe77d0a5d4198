"""Comments next to params: the reason why a value in ``params.yaml`` was chosen."""

import io
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML

_COLUMN = 28  # where comments begin in this project's params.yaml
_WIDTH = 120


def with_comments(text: str, comments: Mapping[str, str]) -> str:
    """Put a comment next to each param, in place of the one that its line had.

    Params that share a line share its comment; one that is too long goes on below, in the same column.

    Args:
        text: YAML that holds the params.
        comments: by the param's dotted name.
    """
    document = YAML(typ="rt").load(text)
    by_line: dict[int, list[str]] = {}
    for name, comment in comments.items():
        said = by_line.setdefault(_line(document, name), [])
        if comment not in said:
            said.append(comment)
    lines, ends = text.splitlines(), _ends(text)
    result: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        if number not in by_line:
            result.append(line)
        else:
            indent = len(line) - len(line.lstrip())
            result += _commented(line[: ends[number]], "; ".join(by_line[number]))
            while number + 1 < len(lines) and _continues(lines[number + 1], indent):
                number += 1
        number += 1
    return "\n".join(result) + "\n"


def comments_of(text: str) -> dict[str, str]:
    """The comment of each param and section, by its dotted name; where several share a line, the first has it.

    A comment stands on the lines above, or behind and goes on below, in a column of its own.

    Args:
        text: YAML that holds the params.
    """
    lines, ends = text.splitlines(), _ends(text)
    comments: dict[str, str] = {}
    seen: set[int] = set()
    for name, number in _places(YAML(typ="rt").load(text), ""):
        if number in seen:
            continue
        seen.add(number)
        line = lines[number]
        indent = len(line) - len(line.lstrip())
        parts: list[str] = []
        above = number - 1
        while above >= 0 and lines[above].lstrip().startswith("#") and not _continues(lines[above], indent):
            parts.insert(0, lines[above])
            above -= 1
        parts.append(line[ends[number] :])
        below = number + 1
        while below < len(lines) and parts[-1].strip() and _continues(lines[below], indent):
            parts.append(lines[below])
            below += 1
        if comment := " ".join(part.strip().lstrip("# ") for part in parts if part.strip()):
            comments[name] = comment
    return comments


def _places(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    """Each param and section with the line, from 0, on which its key stands."""
    for key in node if isinstance(node, dict) else ():
        yield prefix + key, int(node.lc.key(key)[0])
        yield from _places(node[key], f"{prefix}{key}.")


def _line(document: Any, name: str) -> int:
    """The line, from 0, on which a param's key stands."""
    *parents, leaf = name.split(".")
    for parent in parents:
        document = document[parent]
    return int(document.lc.key(leaf)[0])


def _ends(text: str) -> dict[int, int]:
    """The column at which the YAML of each line ends and its comment may begin."""
    ends: dict[int, int] = {}
    for token in YAML(typ="rt").scan(io.StringIO(text)):
        begin, end = token.start_mark, token.end_mark
        if (begin.line, begin.column) != (end.line, end.column):
            ends[end.line] = max(ends.get(end.line, 0), end.column)
    return ends


def _commented(line: str, comment: str) -> list[str]:
    column = max(_COLUMN, len(line) + 2)
    first, *more = textwrap.wrap(comment, _WIDTH - column - 2)
    return [f"{line:<{column}}# {first}", *(f"{'':<{column}}# {part}" for part in more)]


def _continues(line: str, indent: int) -> bool:
    """Tell if a line continues the comment of a param that is indented so far."""
    inner = line.lstrip()
    return inner.startswith("#") and len(line) - len(inner) > indent
