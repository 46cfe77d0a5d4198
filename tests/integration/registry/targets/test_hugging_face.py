"""Pushes to a server that speaks the hub's API, by the hub's own library."""

import traceback
from pathlib import Path

import huggingface_hub.constants
import pytest

from reflux.components.core.errors import UserError
from reflux.components.registry.targets.hugging_face import Repository
from reflux.components.registry.targets.target import Published
from tests.hub import TOKEN, HubRepository

CARD = "evaluation/model-card.md"
FACTS = {"title": "clothes", "version": "3"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / CARD).write_text("---\nlicense: mit\n---\n\n# clothes\n")
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    (tmp_path / "model.onnx").write_bytes(bytes(range(256)) * 40)
    return tmp_path


def push(folder: Path, name: str = "team/clothes", public: bool = False) -> Published:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    repository = Repository(name, CARD, public)
    repository.check()
    return repository.push(folder, files, FACTS)


def test_a_version_is_one_commit_of_a_private_repository(hub, folder, capfd):
    published = push(folder)
    assert (published.reference, published.files) == ("hf://team/clothes", 3)
    repository = hub.repositories["team/clothes"]
    assert repository.private
    assert repository.commits == ["clothes version 3"]
    assert published.digest == f"{1:040x}"
    own = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {name: repository.files[name] for name in own} == own
    assert repository.files.keys() - own.keys() == {"README.md", ".gitattributes"}
    assert repository.files["README.md"] == own[CARD]
    assert list(hub.large.values()) == [own["model.onnx"]]
    assert TOKEN not in "".join(capfd.readouterr())


def test_the_next_version_leaves_no_file_of_the_one_before(hub, folder):
    push(folder)
    (folder / "model.onnx").rename(folder / "model.pte")
    push(folder)
    repository = hub.repositories["team/clothes"]
    assert repository.files.keys() == {".gitattributes", "README.md", "MLmodel", "model.pte", CARD}
    assert len(repository.commits) == 2


def test_only_public_makes_or_takes_a_public_repository(hub, folder):
    push(folder, public=True)
    repository = hub.repositories["team/clothes"]
    assert not repository.private
    with pytest.raises(UserError, match=r"^hf://team/clothes is public: push with --public, or name another"):
        push(folder)
    assert len(repository.commits) == 1


def test_another_ones_files_are_not_removed(hub, folder):
    hub.repositories["team/clothes"] = HubRepository(True, {"README.md": b"", "train.py": b"", "weights.bin": b""})
    with pytest.raises(UserError, match=r"holds files that are no version's \(train.py, weights.bin\), which a push"):
        push(folder)
    assert hub.repositories["team/clothes"].commits == []


def test_a_token_is_needed_and_comes_from_the_environment_alone(hub, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(UserError, match=r"^Pushing to the hub needs HF_TOKEN, a token that may write: https://"):
        push(folder)
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("token", "name", "fails", "sentence"),
    [
        ("hf_anotherSecret", "team/clothes", {}, r"was not pushed: the hub refuses HF_TOKEN; make one that may write"),
        (TOKEN, "others/clothes", {}, r"^hf://others/clothes was not pushed: HF_TOKEN may not write there; take a"),
        (TOKEN, "team/clothes", {"/create": 404}, r"was not pushed: the hub has no such user, organization or"),
        (TOKEN, "team/clothes", {"/commit/main": 507}, r"was not pushed: the hub answered 507 \(not today\); push"),
        (TOKEN, "team/clothes", {"/validate-yaml": 400}, r"was not pushed \(Invalid metadata in README.md"),
        (TOKEN, "team/clo--thes", {}, r"was not pushed \(.*clo--thes"),
    ],
)
def test_a_refusal_is_one_sentence_without_the_token(hub, folder, monkeypatch, token, name, fails, sentence):
    monkeypatch.setenv("HF_TOKEN", token)
    hub.fails = fails
    with pytest.raises(UserError, match=sentence) as refused:
        push(folder, name)
    assert "\n" not in str(refused.value)
    assert token not in "".join(traceback.format_exception(refused.value))
    assert all(not each.commits for each in hub.repositories.values())


def test_a_hub_that_is_away_is_one_sentence(folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match=r"^No hub answers at http://127\.0\.0\.1:9 \(ConnectionError\): check the"):
        push(folder)
