"""Bring the text of an older ``params.yaml`` up to date; comments and layout stay.

Each step changes lines, and its result is parsed again and held against the change of the values that it stands for.
"""

import io
from collections.abc import Collection, Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.components.core.params.releases import Change, changes_of, holds


class ByHand(Exception):
    """A layout in which lines can't be moved: several params on one of them."""


def migrated(text: str, where: str) -> tuple[str, list[Change]]:
    """Rename and remove what newer releases know by another name, or not at all.

    Args:
        text: of the params.
        where: the file, for a message.

    Raises:
        UserError: a param stands where only a person can change it.
    """
    changes = changes_of(_parsed(text))
    for change in changes:
        before = _parsed(text)
        after = _changed(before, change)
        try:
            text = _renamed(text, change) if change.new else without(text, change.old)
            done = after is not None and _parsed(text) == after
        except ByHand:
            done = False
        if not done:
            hint = f"write it as {change.new}" if change.new else "delete it"
            raise UserError(f"{where}: {change}, which can't be changed automatically here: {hint}.")
    return text, changes


def extended(text: str, shipped: str, values: Mapping[str, Any], known: Collection[str]) -> tuple[str, list[str]]:
    """Add the params that an older file lacks, with their comments.

    Added are those whose value is their default, as they hold without a line, too: no result changes.

    Args:
        text: of the params.
        shipped: the text that has all of them, of the installed release.
        values: the params of the text, with the defaults of those that are left out.
        known: names that the older release knew: they were left out by someone.

    Returns:
        The new text, and the names of the params and sections that were added.
    """
    offered = _parsed(shipped)
    added: list[str] = []
    for section, params in offered.items():
        present = _parsed(text)
        if section not in present:
            own = [name for name in known if name.split(".")[0] == section]
            if not own and values.get(section) == params:
                text, added = pasted(text, section, cut(shipped, section), list(offered)), [*added, section]
            continue
        for key in params if isinstance(params, dict) and isinstance(present[section], dict) else ():
            name = f"{section}.{key}"
            if key in present[section] or name in known or values[section].get(key) != params[key]:
                continue
            try:
                longer = pasted(text, name, cut(shipped, name), list(params))
            except ByHand:  # the section is on one line
                continue
            text, added = longer, [*added, name]
    return text, added


def cut(text: str, name: str) -> list[str]:
    """The lines of a param or section, with the comments above it and behind it, without their indentation.

    Raises:
        ByHand: it shares a line with others.
    """
    begin, end, column = _place(text, name)
    return [line[column:] for line in text.splitlines()[begin:end]]


def without(text: str, name: str) -> str:
    """The text without a param's lines; a section that is empty then goes as well.

    Raises:
        ByHand: it shares a line with others.
    """
    parent = name.rpartition(".")[0]
    if parent and len(_node(_parsed(text), parent)) == 1:
        return without(text, parent)
    begin, end, _ = _place(text, name)
    lines = text.splitlines()
    if not parent and begin and not lines[begin - 1].strip():  # one of the blank lines around a section
        begin -= 1
    return "\n".join([*lines[:begin], *lines[end:]]) + "\n"


def pasted(text: str, name: str, block: list[str], order: list[str]) -> str:
    """The text with the lines of a param or section, put before what comes after it in an order of names.

    Raises:
        ByHand: its section is no block of lines.
    """
    parent, _, leaf = name.rpartition(".")
    node, lines = _node(_parsed(text), parent), text.splitlines()
    prefix = f"{parent}." if parent else ""
    later = [key for key in order[order.index(leaf) + 1 :] if key in node] if leaf in order else []
    begin, end, column = _place(text, prefix + str(later[0] if later else list(node)[-1]))
    at = begin if later else end
    new = [" " * column + line if line else line for line in block]
    gap = [""] if not parent else []
    new = [*new, *gap] if later else [*gap, *new]
    return "\n".join([*lines[:at], *new, *lines[at:]]) + "\n"


def _renamed(text: str, change: Change) -> str:
    """The text with a param under its new name, in place or in another section.

    Raises:
        ByHand: it shares a line with others, and can't stay there.
    """
    new, (old_parent, _, old) = str(change.new), change.old.rpartition(".")
    parent, _, leaf = new.rpartition(".")
    if holds(_parsed(text), new):
        raise ByHand
    node, lines = _node(_parsed(text), old_parent), text.splitlines()
    row, column = node.lc.key(old)
    value_row, value_column = node.lc.value(old)
    line = lines[row]
    if value_row != row or not line[column:].startswith(old):
        raise ByHand
    end = _end_of_value(text, row, value_column)
    value = change.value.format(line[value_column:end])
    lines[row] = _aligned(f"{line[:column]}{leaf}{line[column + len(old) : value_column]}{value}", line[end:], end)
    text = "\n".join(lines) + "\n"
    if parent == old_parent:
        return text
    moved = f"{old_parent}.{leaf}"
    return pasted(without(text, moved), new, cut(text, moved), [])


def _aligned(line: str, rest: str, end: int) -> str:
    """A changed line with the rest of it, whose comment stays in its column where there is room."""
    if not rest.lstrip().startswith("#"):
        return line + rest
    column = end + len(rest) - len(rest.lstrip())
    return f"{line:<{column - 2}}  {rest.lstrip()}"


def _end_of_value(text: str, row: int, column: int) -> int:
    """The column at which a value ends that begins on a line.

    Raises:
        ByHand: it ends on another one.
    """
    tokens = [token for token in YAML(typ="rt").scan(io.StringIO(text)) if token.start_mark.line == row]
    ends = [each.end_mark.column for each in tokens if each.start_mark.column == column and each.end_mark.line == row]
    if not ends:
        raise ByHand
    return int(max(ends))


def _place(text: str, name: str) -> tuple[int, int, int]:
    """The first line of a param with the comments above it, the line after its last, and its column.

    Raises:
        ByHand: it shares a line with others.
    """
    parent, _, leaf = name.rpartition(".")
    lines = text.splitlines()
    row, column = _node(_parsed(text), parent).lc.key(leaf)
    if lines[row][:column].strip():
        raise ByHand
    begin, end = row, row + 1
    while begin and lines[begin - 1].startswith(" " * column + "#"):
        begin -= 1
    for number in range(row + 1, len(lines)):
        line = lines[number]
        if line.strip() and len(line) - len(line.lstrip()) <= column and not line[column:].startswith("- "):
            break
        end = number + 1 if line.strip() else end
    return begin, end, column


def _node(document: Any, name: str) -> Any:
    """A section of a document, or all of it if the name is empty.

    Raises:
        ByHand: there is none.
    """
    for part in filter(None, name.split(".")):
        if not isinstance(document, dict) or part not in document:
            raise ByHand
        document = document[part]
    return document


@lru_cache(maxsize=32)  # each step looks at the same text several times, and datasets often share their params
def _parsed(text: str) -> Any:
    """What a text says, with the places of all keys; nobody changes it."""
    return YAML(typ="rt").load(text)


def _changed(document: Any, change: Change) -> Any:
    """What a document holds after a change; None if it already has the new param."""
    document = deepcopy(document)
    parent, _, leaf = change.old.rpartition(".")
    value = _node(document, parent).pop(leaf)
    if change.new:
        section, _, key = change.new.rpartition(".")
        target = document.setdefault(section, {})
        if key in target:
            return None
        target[key] = value if change.value == "{}" else _parsed(change.value.format(value))
    if not _node(document, parent):
        del document[parent]
    return document
