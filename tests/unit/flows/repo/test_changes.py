from pathlib import Path

import pytest

from reflux.components.core.artifacts import sha256_file, write_json
from reflux.components.core.params.file import check_params, load_params
from reflux.components.core.params.sections import Params
from reflux.flows.repo.changes import differences, outdated

SHIPPED = load_params(Path(__file__).parents[4] / "params.yaml")


def naming(section: str, **values: object) -> Params:
    """The shipped params with other values in a section."""
    document = SHIPPED.model_dump(by_alias=True, exclude={"distill": {"method"}})
    return check_params(document | {section: {**document[section], **values}}, "test")


@pytest.mark.parametrize(
    ("section", "values", "told_by", "stages"),
    [
        ("pretrain", {"weights": "kept.safetensors"}, "pretrain/model.json", {"pretrain"}),
        ("student", {"weights": "kept.safetensors"}, "pretrain/student/model.json", {"pretrain"}),
        ("distill", {"teachers": ["kept.safetensors"]}, "distill/run.json", {"label", "distill"}),
        ("ingest", {"source_domain": "kept.safetensors"}, "ingest/run.json", {"ingest"}),
        ("pretrain", {"mode": "supervised", "source": "kept.safetensors"}, "ingest/run.json", {"ingest"}),
    ],
)
def test_weights_that_changed_under_their_name_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, values: dict, told_by: str, stages: set[str]
):
    monkeypatch.chdir(tmp_path)
    params, file = naming(section, **values), Path("kept.safetensors")
    assert outdated(params) == frozenset()
    file.write_bytes(b"first")
    assert outdated(params) == stages, "nothing here tells what its content was"
    write_json(
        Path("artifacts") / told_by, {"sha256": sha256_file(file), "inputs": {"kept.safetensors": sha256_file(file)}}
    )
    assert outdated(params) == frozenset()
    file.write_bytes(b"second")
    assert outdated(params) == stages
    assert outdated(SHIPPED) == frozenset()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"seed": 0}, {"seed": 0}, []),
        (
            {"student": {"steps": 1500, "lr": 0.01}},
            {"student": {"steps": 3000, "lr": 0.01}},
            ["student.steps: 1500 → 3000"],
        ),
        ({"student.model": "resnet8"}, {"student.model": "resnet20"}, ["student.model: resnet8 → resnet20"]),
        ({"label": {}}, {"label": {"views": None}}, ["label.views: unset → null"]),
        ({"a": {"flip": True, "shift": 0.1}}, {"a": {"shift": 0.1}}, ["a.flip: true → unset"]),
        ({"Ingest": {"slices": []}}, {"Ingest": {"slices": ()}}, []),
        ({"distill": {"method": "kd"}}, {"distill": {"method": ["kd"]}}, ['distill.method: kd → ["kd"]']),
    ],
)
def test_values_that_differ_are_named(before, after, said):
    assert list(differences(before, after)) == said
