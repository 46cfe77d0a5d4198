import ast
import base64
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from reflux.components.core.contract import FILES
from reflux.components.core.params.file import override_params
from reflux.components.core.significance import Interval
from reflux.components.modalities.image.models.pixel_model import ModelSpec
from reflux.components.stages.evaluate.card import describe, render
from tests.workspaces import ROOT

NASTY = ("a|b", "<script>alert(1)</script>", "*bold* _it_ `code` [link](http://x)", "line\nbreak")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
FIGURES = (
    "size-accuracy",
    "learning-curves",
    "class-recall",
    "confusion-matrix",
    "confusions",
    "reliability",
    "worst-mistakes",
    "disagreements",
    "corruptions",
)


def measured(accuracy: float, **more: float):
    figures = {"accuracy": accuracy, "macro_f1": accuracy, "worst_class_recall": 0.25, "ece": 0.05, "nll": 0.5}
    return figures | {"params": 44_000, "size_bytes": 180_000} | more


CORRUPTED = {"noise_accuracy": 0.7, "blur_accuracy": 0.6, "brightness_accuracy": 0.65, "jpeg_accuracy": 0.71}


@pytest.fixture
def metrics():
    timed = {"latency_ms_p50": 0.0521, "latency_ms_p95": 1.5}
    corrupted = CORRUPTED | {"corrupted_accuracy": 0.665}
    cameras = {f"camera {i}": {"n": 10 + i, "accuracy": 1 - i / 100} for i in range(30)}
    return {
        "test": {"fingerprint": "f" * 64, "n": 8},
        "teacher": measured(0.9, **timed) | {"params": 3_300_000},
        "student": measured(0.75),
        "control": measured(0.5, **timed, **corrupted),
        "shipped": {
            "pt2": measured(0.75),
            "onnx": measured(0.75, **timed, **corrupted),
            "onnx_int8": measured(0.7, **timed),
        },
        "slices": {
            "class": {"a|b": {"n": 2, "accuracy": 1.0}},
            NASTY[1]: cameras | {NASTY[0]: {"n": 1, "accuracy": 0.0}},
        },
        "confusions": [
            {"true": "a|b", "predicted": NASTY[2], "n": 1200, "of": 4000},
            {"true": NASTY[2], "predicted": "a|b", "n": 7, "of": 9},
        ],
        "gain": {"accuracy": 0.25, "ci95": [-0.125, 0.5], "p_value": 0.0312},
        "classes": list(NASTY),
    }


@pytest.fixture
def facts(metrics, tmp_path):
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    logits = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2, 0, 3, 0]] * 5
    logits_of = dict.fromkeys(("teacher", "student", "control", "pt2", "onnx", "onnx_int8"), logits)
    right = {name: own.argmax(axis=1) == labels for name, own in logits_of.items()}
    dataset = {
        "name": "things_of|mine",
        "source": "data/thi`ngs",
        "image_size": 12,
        "channels": 1,
        "counts": {"train": 4, "val": 4, "test": 8, "unlabeled": 0},
        "fingerprints": dict.fromkeys(("train", "val", "test", "unlabeled"), "0123456789abcdef" * 4),
    }
    shutil.copy(ROOT / "params.yaml", tmp_path)
    params = override_params(["registry.model_name=my_student"], tmp_path / "params.yaml")
    spec = ModelSpec("resnet8", NASTY, 12, 1, (0.3,), (0.2,))
    entry = {"max_abs_logit_difference": 2e-6, "agreement": 1.0, "n": 4, "size_bytes": 180_000, "sha256": "c" * 64}
    mistakes = [{"path": "a|b/`x`.png", "true": NASTY[0], "predicted": NASTY[1], "confidence": 0.991}]
    return (
        describe.results_facts(metrics, logits_of, labels, right, Interval(-0.15, -0.3, 0.0))
        | describe.origin_facts(dataset, params, spec, spec)
        | {
            "files": {"pt2": "student.pt2", "onnx": "student.onnx", "onnx_int8": "student-int8.onnx"},
            "ships": {"kind": "onnx", "file": "student.onnx", "why": "compress.ships names it"},
            "parity": {"pt2": entry, "onnx": entry, "onnx_int8": entry},
            "mistakes": mistakes,
            "corruptions": describe.corruptions(metrics, 12),
            "hashes": {"teacher's weights, sha256": "d" * 64},
        }
    )


@pytest.fixture
def page(facts, metrics, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in FIGURES:
        (tmp_path / "figures" / f"{name}.png").write_bytes(PNG)
    tiles = describe.tiles(metrics, Interval(-0.15, -0.3, 0.0))
    return render.page(render.markdown(facts), "my_<i>student", tiles, tmp_path)


class Page(HTMLParser):
    """Collects the elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_key_figures_are_there(facts):
    text = " ".join(render.markdown(facts).split())
    assert "accuracy is **75.00%**" in text
    assert "gained **+25.00** points (95% interval -12.50 to +50.00, McNemar p = 0.031)" in text
    assert "how much another training run would gain is not in them" in text
    assert "0.0521 ms" in text
    assert "-15.00 points (95% interval -30.00 to +0.00)" in text


def test_the_file_that_ships_is_named_and_its_figures_are_the_students(metrics, facts):
    ships = {"kind": "onnx_int8", "file": "student-int8.onnx", "why": "it is the smallest"}
    page = " ".join(render.markdown(facts | {"ships": ships}).split())
    assert "`student-int8.onnx` is the file that is registered: it is the smallest." in page
    assert 'InferenceSession("student-int8.onnx")' in page
    assert "times as long" not in page
    page = " ".join(render.markdown(facts | {"ships": ships | {"slower": 1.053}}).split())
    assert "On the machine that measured it, it takes at least 1.05 times as long as `student.onnx`. ##" in page
    tiles = describe.tiles(metrics | {"ships": ships}, Interval(-0.15, -0.3, 0.0))
    assert [tile["value"] for tile in tiles if tile["label"] == "Test accuracy"] == ["70.00%"]
    assert [tile["note"] for tile in tiles if tile["label"] == "File"] == ["ONNX, int8"]


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "pt2"])
def test_the_code_that_asks_the_file_opens_it_in_its_runtime(facts, kind):
    file = FILES[kind]
    text = render.markdown(facts | {"file": file, "ships": {"kind": kind, "file": file.name, "why": "it is named"}})
    code = re.search(r"## Use.*?```python\n(.*?)```", text, re.DOTALL)[1]
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert file.format.runtime.replace("-", "_") in {module.split(".")[0] for module in modules}
    assert f'"{file.name}"' in code


@pytest.mark.parametrize(
    ("remedy", "high", "sentence"),
    [
        ("more_views", 0.1, "Distillation brought no measurable gain here. What usually helps: more\\_views. ##"),
        ("more_views", -0.1, "Distillation did not pay here. What usually helps: more\\_views. ##"),
        (None, 0.1, "is not in them. ##"),
    ],
)
def test_what_usually_helps_is_said_where_distillation_did_not_pay(facts, remedy, high, sentence):
    gain = facts["gain"] | {"ci95": [-0.2, high]}
    assert sentence in " ".join(render.markdown(facts | {"remedy": remedy, "gain": gain}).split())


def test_the_loss_and_the_use_of_each_split_are_said(facts):
    text = " ".join(render.markdown(facts).split())
    assert "The student's loss is `0.1 · CE(labels) + 1 · (1 · kd)`." in text
    assert "- `kd`: `T² Σ_k q_k log(q_k / p_k)` (warmup 0.0, temperature 1.0)" in text
    assert "| train | 4 | training of teacher, student and control; the ranges of the int8 file |" in text
    assert "The checkpoints of teacher, student and control were chosen on the validation split." in text
    assert "| val | 4 | choosing checkpoints and the file that ships; comparing the files with the student |" in text
    assert "| unlabeled | 0 | training of the student, through the teacher's soft labels |" in text
    assert "| test | 8 | the figures of this card; the gates and the comparison with the champion |" in text
    assert "Reflux distilled it from a teacher (resnet8)" in text


def test_a_student_without_a_teacher_is_not_called_distilled(facts):
    text = " ".join(render.markdown(facts | {"taught": False}).split())
    assert "It was trained with others of its kind, and is compared with a teacher (resnet8)" in text


def test_what_was_not_measured_is_a_dash_and_never_zero(facts):
    row = next(
        line for line in render.markdown(facts).splitlines() if "torch.export, fp32 |" in line and "KB" not in line
    )
    assert "75.00%" in row
    cost = [line for line in render.markdown(facts).splitlines() if line.startswith("| student: torch.export")][1]
    assert cost.endswith("| 44,000 | 175.8 | - | - |")


def test_every_row_of_a_table_has_its_header_s_cells(facts):
    tables = re.findall(r"(?:^\|.*\n)+", render.markdown(facts), re.MULTILINE)
    assert len(tables) > 6
    for table in tables:
        cells = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table


def test_the_figures_are_linked_next_to_the_card(facts):
    links = re.findall(r"!\[[^]]+]\(([^)]+)\)", render.markdown(facts))
    assert sorted(links) == sorted(f"figures/{name}.png" for name in FIGURES)


def test_names_from_data_are_shown_and_never_run(page):
    parsed = Page(page)
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert not [attributes for tag, attributes in parsed.elements if tag in ("a", "i", "em", "link", "iframe")]
    text = " ".join(parsed.text.split())
    for name in (
        "a|b",
        "<script>alert(1)</script>",
        "*bold* _it_ `code` [link](http://x)",
        "line break",
        "a¦b/`x`.png",
    ):
        assert name in text
    assert "my_<i>student: model card" in text


def test_the_page_is_self_contained(page):
    images = [attributes["src"] for tag, attributes in Page(page).elements if tag == "img"]
    assert len(images) == len(FIGURES)
    assert all(base64.b64decode(source.removeprefix("data:image/png;base64,")) == PNG for source in images)
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|url\(|@import""", page)
    assert "default-src 'none'" in page


def test_the_page_has_one_title_and_opens_with_the_key_figures(page):
    tags = [tag for tag, _ in Page(page).elements]
    assert tags.count("h1") == 1
    assert tags.index("dl") < tags.index("h2")
    assert "points, with 75 times fewer parameters" in page


def test_code_keeps_its_underscores(facts):
    assert 'load_model("models:/my_student@champion")' in render.markdown(facts)


def test_a_fact_that_is_missing_is_an_error_and_not_a_blank(facts):
    with pytest.raises(Exception, match="processor"):
        render.markdown({key: value for key, value in facts.items() if key != "processor"})


def test_without_mistakes_there_is_no_table_of_them(facts):
    assert "may be a wrong label" not in render.markdown(facts | {"mistakes": []})


def test_the_likeliest_confusions_are_named_where_there_are_any(facts):
    text = " ".join(render.markdown(facts).split())
    assert "Its likeliest confusions: a\\|b is taken for \\*bold\\*" in text
    assert "in 1,200 of 4,000, \\*bold\\*" in text
    assert "is taken for a\\|b in 7 of 9 test images." in text
    assert "onfusions" not in render.markdown(facts | {"confusions": []})


def test_the_hardest_classes_come_first(facts):
    assert [row["name"] for row in facts["hardest"]] == [NASTY[2], NASTY[3], NASTY[0]]


def test_the_worst_slices_come_first_and_the_others_are_counted(facts):
    text = render.markdown(facts)
    section = text.split("## Slices by ")[1].split("## ")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")][2:]
    assert rows == ["a\\|b", *(f"camera {i}" for i in range(29, 10, -1))]
    assert "The worst first; 11 better ones are in `metrics.json`." in section
    assert text.count("## Slices by") == 1


def test_each_corruption_has_both_accuracies(facts):
    text = render.markdown(facts)
    assert "| jpeg | JPEG of quality 58 | 71.00% | 71.00% |" in text
    assert "| unchanged | the test images themselves | 75.00% | 50.00% |" in text
    assert "nearest to 12 pixels" in text


def test_wilson_s_interval_by_the_book():
    # 8 of 10: (0.4902, 0.9433), Wilson 1927 as in any table of binomial intervals.
    low, high = describe.accuracy_interval(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
