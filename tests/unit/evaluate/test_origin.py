import json

from components.evaluate import origin


def test_only_tracked_stages_have_a_run(tmp_path):
    for stage, run in (("ingest", "abc"), ("finetune", None)):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "run.json").write_text(json.dumps({"mlflow_run_id": run}))
    assert origin.runs(("ingest", "finetune", "distill"), tmp_path) == {"ingest": "abc"}


def test_the_processor_has_a_name_everywhere(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Fast CPU 9000\n")
    assert origin.processor(tmp_path / "cpuinfo") == "Fast CPU 9000"
    assert origin.processor(tmp_path / "none")


def test_the_software_has_releases():
    assert "onnxruntime " in origin.software()
