"""The documentation, built by MkDocs with warnings as errors, where its extra is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workspaces import ROOT

pytestmark = pytest.mark.long
pytest.importorskip("mkdocs", reason="the documentation is not built: pip install -c constraints.txt -e '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "infra/docs/mkdocs.yml", "-d", str(folder)]
    environment = os.environ | {"REFLUX_REPOSITORY_URL": "https://git.example.com/reflux"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def text(page: Path) -> str:
    """A page without its tags."""
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_the_reference_is_made_from_the_code(site: Path):
    assert "finetune.layer_decay" in text(site / "reference/params/index.html")
    assert "--expected-champion" in text(site / "reference/commands/index.html")
    api = text(site / "reference/api/index.html")
    assert "Register a loss under the name of its params class" in api
    assert ":func:" not in api


def test_pages_from_next_to_the_code_are_there_with_their_links(site: Path):
    registry = (site / "components/registry/index.html").read_text(encoding="utf-8")
    assert 'href="../../how-to/champion/"' in registry
    distill = (site / "components/stages/distill/index.html").read_text(encoding="utf-8")
    assert 'href="https://git.example.com/reflux/blob/main/components/stages/distill/losses/register.py"' in distill
    assert (site / "pictures/card.png").is_file()
    assert 'class="mermaid"' in (site / "explanation/how-it-works/index.html").read_text(encoding="utf-8")
