"""The model card's front matter: what the Hugging Face hub and its tools read of a card, as YAML above its text."""

from collections.abc import Mapping
from typing import Any

from reflux.components.core.contract import FILES, shipped, ships

TASK = "image-classification"

_TAGS = ("knowledge-distillation", "reflux")
# The hub's names of metrics, with ours and what to show.
_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "f1": ("macro_f1", "Macro F1"),
    "recall": ("worst_class_recall", "Recall of the worst class"),
}


def front_matter(name: str, license_id: str | None, data_md5: str | None, metrics: Mapping[str, Any]) -> str:
    """The card's metadata in the hub's schema, between lines of ``---``.

    Args:
        name: the registered model's.
        license_id: an id of the hub's, such as ``mit``; None states none.
        data_md5: DVC's hash of the dataset, if it is known.
        metrics: the content of ``metrics.json``.
    """
    from huggingface_hub import EvalResult, ModelCardData

    file, figures, dataset = FILES[ships(metrics)], shipped(metrics), metrics["dataset"]["name"]
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split="test",
            dataset_revision=data_md5,
            dataset_args={"fingerprint": metrics["test"]["fingerprint"]},
            metric_type=metric,
            metric_name=label,
            metric_value=figures[key],
        )
        for metric, (key, label) in _METRICS.items()
        if figures.get(key) is not None
    ]
    data = ModelCardData(
        license=license_id,
        pipeline_tag=TASK,
        tags=[TASK, *_TAGS, file.format.runtime, file.precision],
        datasets=[dataset],
        metrics=[each.metric_type for each in results],
        model_name=name,
        eval_results=results,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"
