"""What ``reflux.api`` exports, against ``infra/docs/api.txt``, the changelog, its page and its imports."""

import ast
import subprocess
import sys
from pathlib import Path

from infra.docs import api as guard
from reflux import api
from tests.workspaces import ROOT

CHANGELOG = """## Unreleased

- `reflux.api` has `wave`,
  `tide` and `Sea`.
- `foam` is new.

## 0.1.0

- `reflux.api`: `old`.
"""


def test_no_signature_changes_without_an_entry_in_the_changelog():
    changed = (
        "reflux.api has changed: name what has in CHANGELOG.md, in an entry with `reflux.api`, and run `make api`."
    )
    assert guard.FILE.read_text(encoding="utf-8") == guard.written(guard.signatures()), changed
    unknown = set(api.__all__) - guard.mentioned(guard.CHANGELOG.read_text(encoding="utf-8"))
    assert unknown == set(), "no entry of CHANGELOG.md names them with `reflux.api`"


def test_changes_that_the_changelog_does_not_name_are_listed():
    before = {"wave": "def wave(x)", "foam": "def foam()", "gone": "def gone()", "same": "def same()"}
    after = {
        "wave": "def wave(x, y)",
        "foam": "def foam(x)",
        "same": "def same()",
        "Sea": "class Sea",
        "old": "def old()",
    }
    assert guard.unmentioned(before, after, CHANGELOG) == ["foam", "gone", "old"]
    assert guard.unmentioned(before, before, "") == []


def test_what_is_kept_are_signatures_and_public_members():
    signatures = guard.kept(guard.FILE.read_text(encoding="utf-8"))
    assert signatures["network"] == "def network(name: str) -> Callable[[Builder], Builder]:\n    ..."
    assert "    weight: Weight = 1.0\n" in signatures["Loss"]
    assert "def layer_pairs(self) -> tuple[tuple[str, str], ...]:" in signatures["LayerLoss"]
    assert "names_as_many_layers" not in signatures["LayerLoss"], "a check of pydantic's is nobody's to call"
    assert guard.kept(guard.written(signatures)) == signatures


def test_type_checkers_know_the_names_that_are_there_and_each_has_a_place_on_the_page():
    tree = ast.parse(Path(api.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {each.name: node.module for node in imports for each in node.names}
    assert typed == {name: f"reflux.components.{module}" for name, module in api.MODULES.items()}
    assert sorted(typed) == sorted(api.__all__) == sorted(dir(api))
    page = (ROOT / "infra/docs/pages/reference/api.md").read_text(encoding="utf-8").splitlines()
    assert {name for name in typed if f"::: reflux.api.{name}" not in page} == set()


def test_it_imports_what_is_used_and_nothing_before():
    script = (
        "import sys, reflux.api\n"
        "before = set(sys.modules)\n"
        "assert not {'torch', 'numpy', 'pydantic', 'mlflow', 'typer'} & before, before\n"
        "from reflux.api import UserError\n"
        "assert not {'torch', 'numpy', 'pydantic', 'mlflow', 'typer'} & set(sys.modules)\n"
        "assert not hasattr(reflux.api, 'nothing')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT / "infra/package", check=True)
