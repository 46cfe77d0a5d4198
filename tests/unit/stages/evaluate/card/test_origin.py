import json

from reflux.components.stages.evaluate.card import origin


def test_only_tracked_stages_have_a_run(tmp_path):
    for stage, run in (("ingest", "abc"), ("finetune", None)):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "run.json").write_text(json.dumps({"mlflow_run_id": run}))
    assert origin.runs(("ingest", "finetune", "distill"), tmp_path) == {"ingest": "abc"}


def test_stages_that_noted_what_they_were_computed_with_say_so(tmp_path):
    environments = {"finetune": {"torch": "2.13.0+cu128", "device": "cuda", "compile": True}, "distill": {}}
    for stage, environment in environments.items():
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "run.json").write_text(json.dumps({"environment": environment}))
    told = origin.environments(("finetune", "distill", "control"), tmp_path)
    assert told == {"finetune": "torch 2.13.0+cu128, device cuda, compile true"}


def test_the_software_has_releases():
    assert "onnxruntime " in origin.software()
