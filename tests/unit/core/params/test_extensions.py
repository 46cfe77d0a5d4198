from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from reflux.components.core.contract import FIGURES, STAGES
from reflux.components.core.errors import UserError
from reflux.components.core.params import extensions
from reflux.components.core.params.augment import Augment, StudentAugment
from reflux.components.core.params.distill import METHODS
from reflux.components.core.params.registry import Gates, Registry
from reflux.components.core.params.section import rebuild
from reflux.components.core.params.sections import Params
from reflux.components.core.params.training import Finetune, Pretrain, Student, Training
from reflux.components.core.runtime import closure, installed, lineage
from reflux.components.modalities.image.views.augment import render, view_draws
from reflux.components.modalities.image.views.transforms import TRANSFORMS, transform
from reflux.components.observe.boards.declared import BOARDS
from reflux.components.registry import webhooks
from reflux.components.registry.policy.gates import thresholds
from reflux.components.stages.evaluate.metrics import MEASURES, measure
from reflux.components.stages.ingest.formats.register import FORMATS
from reflux.components.stages.ingest.source import open_source
from reflux.components.stages.validate import expected
from tests.workspaces import ROOT

IMAGE = "modalities/image"
DECIDED = {  # the stages, by the kind of extension
    "figures": {"evaluate"},
    "formats": {"ingest"},
    "transforms": {each for each in STAGES if f"{IMAGE}/views/transforms.py" in closure.files(f"stages.{each}")},
    "expectations": {"validate"},
    "notifiers": set(),
    "boards": set(),
}
SECTIONS = (Augment, StudentAugment, Pretrain, Training, Finetune, Student, Gates, Registry, Params)
REGISTRIES = (METHODS, FIGURES, MEASURES, TRANSFORMS, FORMATS, expected.TABLES, webhooks.NOTIFIERS, BOARDS)

TAKEN = """
from typing import Literal

from reflux.api import Loss

class Mine(Loss):
    name: Literal["kd"] = "kd"
"""
TAKEN_NETWORK = """
from reflux.api import network

@network("resnet8")
def mine(in_chans, num_classes, width=1.0): ...
"""
TAKEN_FIGURE = """
from reflux.api import Figure, figure

@figure("size_kb", Figure("Size"))
def mine(logits, labels): ...
"""
TAKEN_FORMAT = """
from reflux.api import dataset_format

@dataset_format("manifest", "a CSV manifest", lambda path: True)
def read(path, kept): ...
"""
TAKEN_EXPECTATION = """
from reflux.api import expect

@expect("images")
def mine(data): ...
"""
TAKEN_TRANSFORM = """
from reflux.api import transform

@transform("mixup")
def mine(pixels, uniform, strength): ...
"""
TAKEN_NOTIFIER = """
from reflux.api import notifier

@notifier("slack", "MY_SLACK_URL")
def mine(delivery): ...
"""
TAKEN_BOARD = """
from reflux.components.observe.boards.declared import HEALTH, board

board(HEALTH)
"""


def tables() -> list[dict[str, Any]]:
    return [*REGISTRIES, *(section.model_fields for section in SECTIONS)]


def on_the_page(name: str) -> str:
    """The example of the page about extensions that is this file."""
    page = (ROOT / "infra/docs/pages/how-to/extensions.md").read_text(encoding="utf-8")
    return page.split(f"```python\n# extensions/{name}\n")[1].split("```")[0]


def write(name: str, text: str) -> Path:
    file = Path("extensions", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def registries() -> Iterator[None]:
    before = [dict(table) for table in tables()]
    yield
    for table, entries in zip(tables(), before, strict=True):
        table.clear()
        table.update(entries)
    rebuild(SECTIONS)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "losses/a.py",
            "x = 1\n\ny = undefined\n",
            "a.py, line 3, can't be loaded: NameError: name 'undefined' is not de",
        ),
        ("losses/a.py", "def f(:\n", "a.py, line 1, can't be loaded: SyntaxError: invalid syntax"),
        (
            "losses/a.py",
            "import nothing_of_the_kind\n",
            "a.py, line 1, can't be loaded: ModuleNotFoundError: No module",
        ),
        ("losses/a.py", "import sys\n\nsys.exit(3)\n", "a.py, line 3, can't be loaded: SystemExit: 3."),
        ("losses/a.py", TAKEN, "a.py, line 6, can't be loaded: Two methods are named kd."),
        ("networks/a.py", TAKEN_NETWORK, "a.py, line 4, can't be loaded: Two networks are named resnet8."),
        ("figures/a.py", TAKEN_FIGURE, "a.py, line 4, can't be loaded: Two figures are named size_kb."),
        ("formats/a.py", TAKEN_FORMAT, "a.py, line 4, can't be loaded: Two formats are named manifest."),
        (
            "expectations/a.py",
            TAKEN_EXPECTATION,
            "a.py, line 4, can't be loaded: Two tables of expectations are na",
        ),
        ("transforms/a.py", TAKEN_TRANSFORM, "a.py, line 4, can't be loaded: Two transforms are named mixup."),
        ("notifiers/a.py", TAKEN_NOTIFIER, "a.py, line 4, can't be loaded: Two notifiers are named slack."),
        ("boards/a.py", TAKEN_BOARD, "a.py, line 4, can't be loaded: Two boards are named reflux-retraining-"),
        (
            "a.py",
            "",
            "extensions/a.py is in no folder of extensions: move it to one of extensions/losses/, ext",
        ),
        ("loss/a.py", "", "extensions/loss/a.py is in no folder of extensions"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence_with_its_file_and_line(name, text, sentence):
    write(name, text)
    before = [dict(table) for table in tables()]
    with pytest.raises(UserError) as refused:
        extensions.load()
    assert sentence in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert before == tables()


def test_an_extension_is_imported_once():
    file = write("losses/once.py", "open('imported', 'a').write('x')\n")
    extensions.load()
    extensions.load()
    assert Path("imported").read_text() == "x"
    assert [each.name for each in extensions.found()] == [str(file)]


@pytest.mark.parametrize("kind", extensions.EXTENDED)
def test_a_pipeline_has_those_of_its_projects_root(tmp_path, monkeypatch, kind):
    file = write(f"{kind}/shared.py", "")
    for folder in (".dvc", "pipelines/pets"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "pipelines/pets")
    assert [(each.name, each.file) for each in extensions.found()] == [(str(file), tmp_path / file)]
    (tmp_path / "extensions/a.py").touch()
    with pytest.raises(UserError, match=r"^extensions/a.py is in no folder of extensions"):
        extensions.load()


def test_it_counts_as_code_of_the_folder_that_it_extends():
    before = {stage: (installed.code(stage), lineage.code_sha256(f"stages.{stage}")) for stage in STAGES}
    loss, network = write("losses/mine.py", "# one\n"), write("networks/net.py", "# one\n")
    others = {each: write(f"{each}/mine.py", "# one\n") for each in DECIDED}
    for stage, (code, key) in before.items():
        expected = {str(loss)} if stage == "distill" else set()
        expected |= {str(network)} if f"{IMAGE}/models/pixel_model.py" in closure.files(f"stages.{stage}") else set()
        expected |= {str(file) for kind, file in others.items() if stage in DECIDED[kind]}
        assert set(installed.code(stage)) - set(code) == expected
        assert (lineage.code_sha256(f"stages.{stage}") != key) == bool(expected)
    now = installed.code("distill")
    loss.write_text("# two\n")
    assert {part for part, sha256 in installed.code("distill").items() if now[part] != sha256} == {str(loss)}


def test_an_installed_package_brings_some_along(monkeypatch):
    written = write("../site/flowers_losses.py", "")
    monkeypatch.syspath_prepend(str(written.parent.resolve()))
    entry = extensions.EntryPoint("flowers", "flowers_losses", "reflux.losses")
    monkeypatch.setattr(extensions, "_installed", lambda kind: (entry,) if kind == "losses" else ())
    assert [(each.kind, each.name, each.file) for each in extensions.found()] == [
        ("losses", "flowers_losses", written.resolve())
    ]
    missing = extensions.EntryPoint("flowers", "gone_losses", "reflux.losses")
    monkeypatch.setattr(extensions, "_installed", lambda kind: (missing,))
    with pytest.raises(UserError, match="The losses gone_losses, an entry point, can't be found"):
        list(extensions.found())


@pytest.mark.usefixtures("registries")
def test_a_figure_is_measured_and_takes_a_gate():
    write("figures/top2.py", on_the_page("figures/top2.py"))
    extensions.load()
    figures = measure(np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [3, 2, 1]]), np.array([0, 1, 1, 2]))
    assert figures["top2_accuracy"] == 0.75
    params = Registry.model_validate({"model_name": "m", "gates": {"top2_accuracy": {"min": 0.8, "confidence": 0.9}}})
    gates = params.gates.model_dump(exclude_none=True)
    (reason,) = thresholds({"shipped": {"onnx": figures}, "test": {"n": 4}}, gates)
    assert reason.passed is False
    assert reason.sentence.startswith("Accuracy of the best two guesses 0.75, with 90 % confidence at least")
    assert Registry.model_validate({"model_name": "m"}).gates.model_dump(exclude_none=True) == {}
    with pytest.raises(ValidationError, match=r"min = 80 is above 1, and it limits a share"):
        Registry.model_validate({"model_name": "m", "gates": {"top2_accuracy": {"min": 80}}})


@pytest.mark.usefixtures("registries")
def test_a_dataset_format_reads_what_it_recognizes():
    write("formats/numpy_archive.py", on_the_page("formats/numpy_archive.py"))
    extensions.load()
    np.savez("flowers.npz", images=np.zeros((3, 8, 8, 3), np.uint8), labels=["rose", "aster", "rose"])
    source = open_source(Path("flowers.npz"))
    assert (source.classes, source.count) == (["aster", "rose"], 3)
    assert [(item.path, item.label) for item in source.items][1] == ("flowers.npz#1", 0)
    with pytest.raises(UserError, match=r"is a .zip file.*, or an .npz file with images and labels"):
        open_source(write("images.zip", ""))


@pytest.mark.usefixtures("registries")
def test_an_expectation_reads_the_manifest():
    write("expectations/sizes.py", on_the_page("expectations/sizes.py"))
    extensions.load()
    rows = pd.DataFrame({"path": ["a.png", "b.png"], "width": [8, 64], "height": [8, 64]})
    rows.to_parquet("manifest.parquet")
    data = expected.Data(Path("manifest.parquet"), rows, rows, rows, ["a"], None, 8, 0.1)
    table = list(expected.TABLES.values())[-1](data)
    assert table.rows["width"].tolist() == [8, 64]
    assert [check.name for check in table.checks] == ["wide_enough"]


@pytest.mark.usefixtures("registries")
def test_a_transform_is_a_param_that_changes_views():
    images, ids, views = np.arange(192, dtype=np.uint8).reshape(4, 4, 4, 3), np.arange(4, dtype=np.uint64), np.arange(4)
    before, plain = view_draws(0, ids, views), Augment().model_dump()
    write("transforms/invert.py", on_the_page("transforms/invert.py"))
    extensions.load()
    uniform = view_draws(0, ids, views)
    assert uniform.shape == (4, 16)
    assert (uniform[:, :15] == before).all()
    assert Pretrain.model_validate({"model": "m"}).augment.model_dump() == {**plain, "invert": 0.0}
    augment = StudentAugment.model_validate({"invert": 0.5}).model_dump(include={*plain, "invert"})
    shown = render(images, uniform, **augment, device=torch.device("cpu")).permute(0, 2, 3, 1).numpy()
    chosen = uniform[:, 15] < 0.5
    assert chosen.tolist() == [image[0, 0, 0] != own[0, 0, 0] for image, own in zip(shown, images, strict=True)]
    assert (shown == np.where(chosen[:, None, None, None], 255 - images, images)).all()
    transform("halve")(lambda pixels, uniform, strength: pixels * strength)
    with pytest.raises(UserError, match=r"The transform halve returns torch\.float32 of shape"):
        render(images, view_draws(0, ids, views), **augment, halve=0.5, device=torch.device("cpu"))


@pytest.mark.usefixtures("registries")
def test_a_notifier_makes_its_message(monkeypatch):
    write("notifiers/teams.py", on_the_page("notifiers/teams.py"))
    extensions.load()
    monkeypatch.setenv("TEAMS_WEBHOOK_URL", "https://teams.example/hook")
    assert webhooks.is_configured()
    (receiver,) = (each for each in webhooks.receivers() if each.name == "teams")
    event = {"model": "flowers", "version": 3, "event": "rejected", "reason": "Too large."}
    assert receiver.message("msg_1", event, 0)[0] == b'{"text": "flowers version 3: rejected. Too large."}'


@pytest.mark.usefixtures("registries")
def test_a_board_is_kept_like_those_of_reflux():
    write("boards/speed.py", on_the_page("boards/speed.py"))
    extensions.load()
    assert list(BOARDS)[-1] == "our-speed"
    assert BOARDS["our-speed"].metrics() == {"images_per_s"}
