"""What the listings of datasets rule out, before an image is read and before params.yaml is written."""

from pathlib import Path

import pytest

from reflux.components.advice.preflight.sources import check_sources
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides
from reflux.flows.pipeline.preflight import preflight
from tests.workspaces import ROOT

ZERO_SHOT = (
    *("pretrain.mode=zero-shot", "pretrain.weights=open_clip", "pretrain.model=open_clip:ViT-B-32/openai"),
    "finetune.strategy=none",
)


def images(root: Path, *classes: str) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(b"is not read")
    return root


def assignments(own: Path, domain: Path) -> list[str]:
    return [f"ingest.source={own}", f"ingest.source_domain={domain}"]


def test_a_source_domain_of_other_classes_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = images(tmp_path / "own", "cat", "dog")
    wrong = assignments(own, images(tmp_path / "wrong", "cat", "owl"))
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="lacks dog and has owl, which the dataset has not: a source domain has"):
        preflight(wrong)
    assert Path("params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_classes_without_words_are_refused(tmp_path: Path):
    own, names = images(tmp_path / "own", "cat", "dog"), tmp_path / "names.yaml"
    named = [f"ingest.source={own}", *ZERO_SHOT, f"pretrain.classes={names}"]
    with pytest.raises(UserError, match=r"pretrain\.classes = .*names\.yaml can't be read"):
        check_sources(check_overrides(named, ROOT / "params.yaml"))
    names.write_text("{classes: {cat: a cat}, prompts: ['a photo of {}.']}")
    with pytest.raises(UserError, match="has no words for dog: under `classes` give every class of the dataset a text"):
        check_sources(check_overrides(named, ROOT / "params.yaml"))
    names.write_text("{classes: {cat: a cat, dog: a dog}, prompts: ['a photo of {}.']}")
    check_sources(check_overrides(named, ROOT / "params.yaml"))


def test_tasks_without_a_column_are_refused(tmp_path: Path):
    (tmp_path / "other.csv").write_text("path,label,color\na.png,x,red\nb.png,y,blue\n")
    named = ["pretrain.mode=supervised", f"pretrain.source={tmp_path / 'other.csv'}", "ingest.source=nowhere"]
    check_sources(check_overrides([*named, "pretrain.tasks={color: 0.5}"], ROOT / "params.yaml"))
    with pytest.raises(UserError, match=r"has no column 'shape', which pretrain\.tasks names"):
        check_sources(check_overrides([*named, "pretrain.tasks={shape: 0.5}"], ROOT / "params.yaml"))


def test_the_same_classes_and_what_is_not_here_yet_pass(tmp_path: Path):
    own = images(tmp_path / "own", "cat", "dog")
    for domain in (images(tmp_path / "same", "dog", "cat"), tmp_path / "nowhere"):
        check_sources(check_overrides(assignments(own, domain), ROOT / "params.yaml"))
    check_sources(check_overrides(assignments(tmp_path / "nowhere", own), ROOT / "params.yaml"))
    with pytest.raises(UserError, match="lacks dog and has owl"):
        check_sources(check_overrides(assignments(own, images(tmp_path / "wrong", "cat", "owl")), ROOT / "params.yaml"))
