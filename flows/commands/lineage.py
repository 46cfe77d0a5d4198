"""``reflux lineage``: where a version comes from, as a tree for a person or as JSON for a program."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict

from rich.text import Text

from reflux.components.core.errors import UserError
from reflux.components.registry import openlineage
from reflux.components.registry.lineage import Node, made_from, trace
from reflux.flows.commands.registry import registry_params
from reflux.flows.report.display import console

EXIT_BROKEN = 1

_HASH = re.compile(r"[0-9A-Za-z-]{7,}|[0-9a-f]*[a-f][0-9a-f]*")


def lineage(of: str, as_json: bool, as_events: bool = False) -> int:
    """Print the tree of a version, or the versions that came from a commit, a data version or another hash.

    Args:
        of: a version's number, or the start of a hash (seven characters, or with a letter).
        as_json: print JSON.
        as_events: print the version's OpenLineage events instead, a line of JSON each.

    Returns:
        0, or 1 when the chain of the version is broken somewhere.

    Raises:
        UserError: there is no such version, or MLflow does not answer.
    """
    params = registry_params()
    model_name = params.registry.model_name
    if as_events:
        if not of.isdecimal():
            raise UserError(f"{of} is no version's number, and only a version has events: see `reflux history`.")
        print(*openlineage.events(params.project.name, model_name, int(of)), sep="\n")
        return 0
    if of.isdecimal() and len(of) < 7:
        return _tree(trace(model_name, int(of)), as_json)
    if not _HASH.fullmatch(of):
        raise UserError(f"{of} is neither a version's number nor the start of a hash: `reflux history` lists both.")
    hits = made_from(model_name, of)
    if as_json:
        print(json.dumps([{"version": int(version.version), "by": label} for version, label in hits], indent=2))
    else:
        for version, label in hits:
            print(f"{model_name} version {version.version}  ({label})")
    return 0


def _tree(root: Node, as_json: bool) -> int:
    problems = list(root.problems())
    if as_json:
        print(json.dumps({"whole": not problems, "problems": problems, "tree": asdict(root)}, indent=2))
    else:
        screen = console()
        for line in (*_lines(root), *(Text(f"Broken: {problem}", style="red") for problem in problems)):
            screen.print(line, soft_wrap=True)
    return EXIT_BROKEN if problems else 0


def _lines(node: Node, before: str = "", below: str = "") -> Iterator[Text]:
    """The tree, a line a node; none is wrapped, so that hashes and addresses can be copied whole."""
    line = Text.assemble(before, (node.name, "bold"), "  ", node.value or "unknown")
    if node.note:
        line.append(f"  ({node.note})")
    if node.page:
        line.append(f"  {node.page}", style="blue")
    if node.problem:
        line.append(f"  ✗ {node.problem}", style="red")
    yield line
    for child in node.children:
        last = child is node.children[-1]
        yield from _lines(child, below + ("└── " if last else "├── "), below + ("    " if last else "│   "))
