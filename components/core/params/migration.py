"""Add what the text of an older YAML file lacks; comments and layout stay."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML


class ByHand(Exception):
    """A layout in which lines can't be moved: several params on one of them."""


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
