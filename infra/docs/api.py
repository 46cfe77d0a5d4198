"""``make api``: keeps the signatures of the public API in ``api.txt``, and asks for a line in the changelog.

The signatures are read from the source, so that they are the same text on every release of Python.
"""

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from reflux import api

FILE = Path(__file__).with_name("api.txt")
_ROOT = Path(__file__).parents[2]
CHANGELOG = _ROOT / "CHANGELOG.md"
_VALIDATORS = ("field_serializer", "field_validator", "model_validator")


def signatures() -> dict[str, str]:
    """The signatures of what ``reflux.api`` exports, by name: of a class with its public members."""
    return {name: _signature(name, api.MODULES[name]) for name in sorted(api.__all__, key=str.lower)}


def kept(text: str) -> dict[str, str]:
    """The signatures in the text of ``api.txt``, by name."""
    return dict(block.split("\n", 1) for block in text.strip("# \n").split("\n\n# ") if block)


def written(signatures: Mapping[str, str]) -> str:
    """The text of ``api.txt``; see :func:`kept`."""
    return "\n".join(f"# {name}\n{signature}\n" for name, signature in signatures.items())


def unmentioned(before: Mapping[str, str], after: Mapping[str, str], changelog: str) -> list[str]:
    """The names that were added, removed or changed, and that no line below *Unreleased* names with ``reflux.api``.

    Args:
        before: signatures by name.
        after: signatures by name.
        changelog: its text.
    """
    _, _, unreleased = changelog.partition("## Unreleased\n")
    named = mentioned(re.split(r"^## ", unreleased, maxsplit=1, flags=re.MULTILINE)[0])
    return [name for name in {**before, **after} if before.get(name) != after.get(name) and name not in named]


def mentioned(changelog: str) -> set[str]:
    """The names between backticks in the entries that speak of ``reflux.api``."""
    entries = re.split(r"^- ", changelog, flags=re.MULTILINE)
    return {name for entry in entries if "`reflux.api`" in entry for name in re.findall(r"`(\w+)`", entry)}


def _signature(name: str, module: str) -> str:
    source = _ROOT.joinpath("components", *module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    (node,) = [node for node in ast.parse(source).body if name in _names(node)]
    return ast.unparse(_stub(node))


def _names(node: ast.stmt) -> set[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _stub(node: ast.stmt) -> ast.stmt:
    """A function or class without what it does, says and keeps to itself."""
    if isinstance(node, ast.ClassDef):
        node.body = [_stub(each) for each in node.body if _is_public(each)] or [ast.Pass()]
    elif isinstance(node, ast.FunctionDef):
        node.body = [ast.Expr(ast.Constant(...))]
    return node


def _is_public(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef):
        decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
        hidden = node.name.startswith("_") and node.name != "__init__"
        return not hidden and not any(each in decorators for each in _VALIDATORS)
    return any(not name.startswith("_") for name in _names(node))


def main() -> None:
    """Write ``api.txt``, once the changelog speaks of what has changed."""
    before, after = kept(FILE.read_text(encoding="utf-8") if FILE.exists() else ""), signatures()
    if names := unmentioned(before, after, CHANGELOG.read_text(encoding="utf-8")):
        changed = ", ".join(f"`{name}`" for name in names)
        sys.exit(f"Error: CHANGELOG.md does not name {changed}: add an entry with `reflux.api` to Unreleased.")
    FILE.write_text(written(after), encoding="utf-8")


if __name__ == "__main__":
    main()
