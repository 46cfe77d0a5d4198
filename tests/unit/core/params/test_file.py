import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides, check_params, load_params, override_params

SHIPPED = Path(__file__).parents[4] / "params.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_the_shipped_params_are_valid_and_frozen():
    loaded = load_params(SHIPPED)
    assert loaded.student.model
    with pytest.raises(ValueError, match="frozen"):
        loaded.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("distill.mixed_target=2", "distill.mixed_target is not a parameter; did you mean distill.mixed_targets"),
        ("distill.method=dkdd", r"'dkdd' is refused: no method is named dkdd; did you mean dkd or kd\?$"),
        ("distill.method=3", "distill.method = 3 is refused: no method is named 3; known are kd, dkd"),
        ("distill.method=[kd, magic]", "no method is named magic; known are kd, dkd"),
        ("distill.method={name: [kd]}", "no method is named .*; did you mean kd"),
        ("distill.method={temperature: 2}", "distill.method: an entry needs the name of its method, such as"),
        ("student={1: 2}", r"student.1 = 1 is refused: the name of a param must be text\.$"),
        ("tune.space.lr=[1, 2, 3]", r"= \[1, 2, 3\] is refused: it must have 2 values or fewer\.$"),
        ("registry.gates.latency_ms_p95.device=pi 5", "'pi 5' is refused: it must be letters, digits, dots, dashes"),
        ("distill.method={name: dkd, betta: 2}", "betta is not a parameter; did you mean distill.method.0.dkd.beta"),
        ("distill.method={name: kd, temperature: 0}", "distill.method.0.kd.temperature = 0 is refused"),
        ("distill.method=[kd, {name: kd, temperature: 2}]", "it names kd twice"),
        ("distill.method=[born-again, teacher-assistant]", "are two schedules"),
        ("distill.method=[kd, deep-mutual-learning]", "has no teacher to compare with; name it alone"),
        ("distill.method=[]", "it names no method"),
        ("distill.method={name: reviewkd, student: [stage:1]}", "distill.method.0.reviewkd: it names 1 layers"),
        (
            "distill={label_weight: 0, teacher_weight: 1, teacher: cached, method: rkd}",
            "distill: rkd compares features",
        ),
        ("distill.method={name: born-again, generations: 1}", "distill.method.0.born-again.generations = 1 is refused"),
        ("distill.when=joint", "distill.when = joint transfers a pretrained student.* set student.weights"),
        (
            "student={model: a, weights: distilled-features, image_size: 9, steps: 1, lr: 1, batch_size: 9}",
            "leaves no step",
        ),
        ("distill={finish: labels, teacher_weight: 1, method: deep-mutual-learning}", "finish = labels .* has none"),
        ("finetune.strategy=none", "pretrain.weights = pypi is none of this dataset"),
        (
            "finetune={strategy: gradual-unfreezing, image_size: 9, probe_steps: 1, probe_lr: 1, epochs: 1, lr: 1, "
            "batch_size: 9, freeze_batch_norm: false}",
            "finetune: strategy = gradual-unfreezing freezes layers.* set freeze_batch_norm to true",
        ),
        (
            "finetune={strategy: none, image_size: 9, probe_steps: 1, probe_lr: 1, epochs: 1, lr: 1, batch_size: 9, "
            "rounds: 2}",
            "finetune: rounds = 2 trains the teacher again and again.* set rounds to 1",
        ),
        ("trainer.lr=2", "trainer is not a parameter"),
        ("registry.gates.accurracy={min: 0.9}", "did you mean registry.gates.accuracy"),
        ("registry.gates.accuracy.min=.nan", "registry.gates.accuracy.min = nan is refused"),
        ("registry.slices.gates.camera={accuracy: {mni: 0.5}}", "did you mean .*camera.accuracy.min"),
        ("registry.slices.gates.camera={acuracy: {min: 0.5}}", "did you mean .*gates.camera.accuracy"),
        ("registry.slices.gates.camera={accuracy: {min: 0.5}}", "camera is not measured; name camera in ingest.slices"),
        ("registry.slices.gates.camera={}", "registry.slices.gates.camera.accuracy is missing"),
        ("registry.slices.min_count=0", "registry.slices.min_count = 0 is refused"),
        ("registry.champion.faster=0.9", "registry.champion.faster = 0.9 is refused"),
        ("registry.champion.alpa=0.1", "did you mean registry.champion.alpha"),
        ("student.steps=many", "student.steps = 'many' is refused"),
        ("student.steps=0", "student.steps = 0 is refused"),
        ("registry.gates.accuracy={}", "a gate needs a min or a max"),
        ("ingest.split={val: 0.6, test: 0.5}", "val [+] test must be below 1"),
        ("student.augment={mixup: 0.6, cutmix: 0.6}", "student.augment: mixup [+] cutmix must be 1 at most"),
        ("ingest.slices=[camera, class]", "ingest.slices = .* the classes are slices already"),
        ("ingest.slices=[camera, camera]", "ingest.slices = .* names a column twice"),
        ("ingest.slices=camera", r"ingest.slices = 'camera' is refused: it must be a list, such as \[a, b\]"),
        ("student.augment.cutmx=0.1", "did you mean student.augment.cutmix"),
        ("finetune.augment.mixup=0.1", "finetune.augment.mixup is not a parameter"),
        (
            "distill={label_weight: 0, teacher_weight: 1, teacher: live, mixed_targets: mixture}",
            "distill: mixed_targets = mixture mixes stored soft labels",
        ),
        ("student", "is not of the form section.key=value"),
        ("seed.deeper=1", "holds a value, not a section"),
        (
            "student.augment={shift: 0.1",
            "augment={shift: 0.1: the value is not valid YAML .*close its brackets",
        ),
        ("student.model=@x", "-S student.model=@x: the value is not valid YAML .*put it in quotes"),
        ("ingest.source=2026-99-99", "the value is not valid YAML .month must be in 1..12"),
        ("student=3", "student = 3 is refused: it is a section; set its params instead: batch_size, .* and .* more"),
        ("registry.gates.accuracy=0.9", "accuracy = 0.9 is refused: it is a section; set its params instead: min, max"),
        ("registry.gates.accuracy=true", "accuracy = true is refused: it is a section"),
        ("registry.slices.gates=3", "registry.slices.gates = 3 is refused: it is a section with a part for each name"),
        ("student.steps=1.5", "student.steps = 1.5 is refused: it must be a whole number"),
        ("label.views=null", "label.views = null is refused: it must be a whole number"),
        ("label.views=0", "label.views = 0 is refused: it is a number of views from 1 on, or auto"),
        ("label.views=many", "label.views = 'many' is refused: it is a number of views from 1 on, or auto"),
        ("label.views=true", "label.views = true is refused: it must be a number"),
        ("run.nproc_per_node=[1]", r"run.nproc_per_node = \[1\] is refused: it must be a whole number"),
        ("student.lr=fast", "student.lr = 'fast' is refused: it must be a number"),
        ("student.lr=0", "student.lr = 0 is refused: it must be above 0"),
        ("student.warmup=2", "student.warmup = 2 is refused: it must be 1 or less"),
        ("student.ema_decay=1", "student.ema_decay = 1 is refused: it must be below 1"),
        ("evaluate.bootstrap=5", "evaluate.bootstrap = 5 is refused: it must be 100 or more"),
        ("seed=4294967296", "it must be below 4294967296"),
        ("student.optimizer=adam", "student.optimizer = 'adam' is refused: choose adamw or sgd"),
        ("ingest.channels=2", "ingest.channels = 2 is refused: choose 1 or 3"),
        ("student.steps=true", "student.steps = true is refused: it must be a whole number"),
        ("student.lr=false", "student.lr = false is refused: it must be a number"),
        ("ingest.channels=true", "ingest.channels = true is refused: it must be a number"),
        ("distill.method={name: kd, temperature: true}", "temperature = true is refused: it must be a number"),
        ("run.compile=maybe", "run.compile = 'maybe' is refused: it must be true or false"),
        ("student.model=3", "student.model = 3 is refused: it must be text, in quotes"),
        ("project.name=''", "project.name = '' is refused: it must not be empty"),
        ("registry.model_name=a/b", "registry.model_name = 'a/b' is refused: it must not contain any of /"),
        ("run.rdzv_endpoint=here", "run.rdzv_endpoint = 'here' is refused: it must be host:port"),
        (
            "registry.gates.accuracy.min=90",
            "gates.accuracy: min = 90 is above 1, .* a share: write 0.9 for 90 %",
        ),
        ("registry.gates.ece={max: 5}", "registry.gates.ece: max = 5 is above 1"),
        ("registry.slices.gates.class={accuracy: {min: 50}}", "gates.class.accuracy: min = 50 is above 1"),
        ("registry.gates.accuracy.min=true", "registry.gates.accuracy.min = true is refused: it must be a number"),
        ("registry.gates.accuracy={min: 0.9, max: 0.1}", "accuracy: min = 0.9 is above max = 0.1, so nothing can pass"),
        (
            "registry.gates.accuracy={min: 1, confidence: 0.9}",
            "accuracy: no number of images shows a share of exactly 0 or 1",
        ),
        ("registry.gates.gain={min: 5}", "registry.gates.gain: min = 5 is above 1"),
        ("registry.gates.size_kb={max: 9, confidence: 0.9}", "registry.gates.size_kb.confidence"),
        ("registry.gates.accuracy={min: 0.8, confidence: 95}", "registry.gates.accuracy.confidence = 95 is refused"),
        ("registry.gates.size_kb={max: -1}", "registry.gates.size_kb: max = -1 can't be passed"),
    ],
)
def test_a_bad_assignment_is_one_sentence_and_leaves_the_file_alone(file: Path, assignment: str, sentence: str):
    before = file.read_bytes()
    with pytest.raises(UserError, match=sentence) as caught:
        override_params([assignment], file)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def keys(section: dict[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    """The path of every param and of every section."""
    for key, value in section.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys(value, *above, key)


def test_no_param_is_refused_in_the_words_of_the_library():
    shipped = YAML(typ="safe").load(SHIPPED)
    refused = 0
    shipped["distill"]["method"] = "kd"
    for *parents, leaf in keys(shipped):
        for value in (None, True, -1, 1.5, 10**12, float("nan"), "", "?", [], ["?"], [-1], {}, {"?": 1}):
            document = deepcopy(shipped)
            section = document
            for parent in parents:
                section = section[parent]
            section[leaf] = value
            try:
                check_params(document, "params.yaml")
            except UserError as error:
                refused += 1
                assert " should " not in str(error), (leaf, value)
                assert "Input" not in str(error), (leaf, value)
    assert refused > 500


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_views_that_show_two_images_and_a_memory_of_whole_ones_are_a_sentence(file: Path, mixing: str):
    assignments = ["distill.method=[kd, temporal-ensembling]", f"student.augment.{mixing}=0.1"]
    with pytest.raises(UserError, match=r"a mixed view shows two; set student.augment.mixup and cutmix to 0, or take"):
        check_overrides(assignments, file)
    check_overrides(assignments[:1], file)


def test_checking_overrides_leaves_the_file_alone(file: Path):
    before = file.read_bytes()
    assert check_overrides(["seed=7"], file).seed == 7
    assert check_overrides([], file) == load_params(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("gate", ["accuracy={min: 1}", "size_kb={max: 200}", "params={max: 90000}", "ece={max: 0}"])
def test_gates_that_a_model_can_pass_are_taken(file: Path, gate: str):
    gates = override_params([f"registry.gates.{gate}"], file).registry.gates
    assert getattr(gates, gate.partition("=")[0]) is not None
    assert load_params(file).registry.gates == gates


def test_overrides_edit_in_place_and_keep_the_comments(file: Path):
    changed = override_params(["student.lr=1e-3", "seed=7", "registry.gates.accuracy.min=0.9"], file)
    assert (changed.student.lr, changed.seed) == (0.001, 7)
    assert changed.registry.gates.accuracy is not None
    assert changed.registry.gates.accuracy.min == 0.9
    text = file.read_text(encoding="utf-8")
    assert "# All settings of the pipeline" in text
    assert load_params(file) == changed


@pytest.mark.parametrize("number", ["3.397278090894185e-16", "1e-3", "0.1e-3", "2.225073858507e-311"])
def test_numbers_are_written_whole(file: Path, number: str):
    override_params([f"student.weight_decay={number}"], file)
    override_params(["seed=7"], file)
    assert load_params(file).student.weight_decay == float(number)


@pytest.mark.parametrize("assignment", ["student.steps={}", "{}=1", "{}", "student.steps=[{}"])
def test_a_sentence_quotes_a_part_of_what_is_too_long(file: Path, assignment: str):
    with pytest.raises(UserError) as refused:
        check_overrides([assignment.format("x" * 5000)], file)
    assert len(str(refused.value)) < 1000


def test_an_override_changes_its_own_line_alone(file: Path):
    before = file.read_text(encoding="utf-8")
    override_params(["student.steps=7"], file)
    assert "rdzv_endpoint: null " in before
    assert file.read_text(encoding="utf-8") == before.replace("  steps: 1500 ", "  steps: 7    ")


def test_a_missing_key_is_named(file: Path):
    file.write_text(re.sub(r"  teacher_weight: 1.0 .*\n", "", file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError, match=r"distill.teacher_weight is missing"):
        load_params(file)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("- 1", "holds no sections of params"),
        ("a: 1\nb: [1\n", "params.yaml, line [23], is not valid YAML: expected"),
    ],
)
def test_what_is_not_a_params_file_is_refused(file: Path, text: str, sentence: str):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        load_params(file)


def test_a_missing_file_says_where_to_go(tmp_path: Path):
    with pytest.raises(UserError, match="run reflux in the project's root folder"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (["run.launcher=torchrun", "run.nnodes=2"], "run.nnodes = 2 needs the host:port of one of the machines"),
        (["run.launcher=torchrun", "run.nnodes='3:2'"], "or the fewest and the most, such as 1:2"),
        (["run.launcher=torchrun", "run.nnodes=0"], "run.nnodes = 0 is refused"),
        (["run.launcher=torchrun", "run.nproc_per_node=all"], "run.nproc_per_node = 'all' is refused"),
        (["run.launcher=torchrun", "run.nnodes=2", "run.rdzv_endpoint=here"], "run.rdzv_endpoint = 'here' is refused"),
        (["run.nproc_per_node=2"], "several processes need run.launcher = torchrun"),
        (["run.nnodes=2"], "several processes need run.launcher = torchrun"),
    ],
)
def test_processes_that_cannot_meet_are_refused(file: Path, assignments: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        override_params(assignments, file)


@pytest.mark.parametrize(("steps", "views"), [(1, 1), (5, 1), (6, 2), (10, 2)])
def test_views_that_do_not_repeat_are_as_many_as_visits_rounded_up(steps: int, views: int):
    student = ["student.batch_size=16", f"student.steps={steps}"]
    assert check_overrides([*student, "label.views=auto"], SHIPPED).views_of_each(80) == views
    assert check_overrides([*student, "label.views=7"], SHIPPED).views_of_each(80) == 7


@pytest.mark.parametrize("name", ["../../evil", "a/../../b", "/etc", "a//b", "a:b", "a\nb", " a", "a/", ".", "it's"])
def test_a_projects_name_leads_out_of_no_folder(name):
    with pytest.raises(UserError, match=r"project.name = .* is refused: it names a folder of artifacts"):
        check_overrides([f"project.name={json.dumps(name)}"], SHIPPED)
    assert check_overrides(["project.name=fashion-mnist 2/night.1"], SHIPPED).project.name


def test_a_section_that_two_names_share_is_changed_under_neither(tmp_path):
    path, text = tmp_path / "params.yaml", SHIPPED.read_text(encoding="utf-8")
    finetune, student = text.index("\nfinetune:"), text.index("\nstudent:")
    assert finetune < student
    text = re.sub(r"\n  augment:.*(\n    .*)*", "", text)
    text = text.replace("\nfinetune:\n", "\nfinetune:\n  augment: &views {flip: true}\n")
    text = text.replace("\nstudent:\n", "\nstudent:\n  augment: *views\n")
    path.write_text(text, encoding="utf-8")
    before = path.read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"student.augment and finetune.augment are one section .* by an anchor"):
        override_params(["student.augment.flip=false"], path)
    assert path.read_text(encoding="utf-8") == before


def test_a_params_file_that_links_to_itself_is_one_sentence(tmp_path):
    (tmp_path / "params.yaml").symlink_to("params.yaml")
    with pytest.raises(UserError, match=r"params.yaml can't be read \(Too many levels of symbolic links\)"):
        load_params(tmp_path / "params.yaml")


def test_a_section_that_is_there_twice_is_named_without_pythons_words(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("student: {steps: 1}\nstudent: {steps: 2}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r'line 2, is not valid YAML: found duplicate key "student"\.$'):
        load_params(path)
