"""The front matter is what the Hugging Face hub's own library reads of a card."""

from typing import Any

from huggingface_hub import ModelCard

from reflux.components.stages.evaluate.card.front_matter import front_matter

MD5 = "0123456789abcdef0123456789abcdef.dir"


def metrics(**figures: float) -> dict[str, Any]:
    measured = {"accuracy": 0.9125, "macro_f1": 0.9, "worst_class_recall": 0.5, "size_bytes": 56_000} | figures
    return {
        "test": {"fingerprint": "f" * 64, "n": 200},
        "dataset": {"name": "flowers: 'red' & #blue"},
        "ships": {"kind": "onnx_int8"},
        "shipped": {"onnx": {"accuracy": 0.1}, "onnx_int8": measured},
    }


def test_the_hubs_library_reads_license_tags_data_and_the_figures_of_the_file_that_ships():
    text = front_matter("flowers-student", "mit", MD5, metrics()) + "# A card\n\n---\n"
    card = ModelCard(text)
    assert card.text.strip().startswith("# A card")
    data = card.data
    assert (data.license, data.pipeline_tag, data.model_name) == ("mit", "image-classification", "flowers-student")
    assert {"image-classification", "knowledge-distillation", "onnxruntime", "int8"} <= set(data.tags)
    assert data.datasets == ["flowers: 'red' & #blue"]
    assert data.metrics == ["accuracy", "f1", "recall"]
    results = {each.metric_type: each for each in data.eval_results}
    assert {name: each.metric_value for name, each in results.items()} == {"accuracy": 0.9125, "f1": 0.9, "recall": 0.5}
    accuracy = results["accuracy"]
    assert (accuracy.task_type, accuracy.dataset_split, accuracy.dataset_revision) == (
        "image-classification",
        "test",
        MD5,
    )
    assert accuracy.dataset_args == {"fingerprint": "f" * 64}
    assert ModelCard(str(card)).data.to_dict() == data.to_dict()


def test_what_is_not_known_is_absent():
    measured = metrics()
    del measured["shipped"]["onnx_int8"]["macro_f1"]
    data = ModelCard(front_matter("m", None, None, measured)).data
    assert "license" not in data.to_dict()
    assert data.metrics == ["accuracy", "recall"]
    assert all(each.dataset_revision is None for each in data.eval_results)
