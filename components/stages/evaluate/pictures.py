"""The pictures of an evaluation, and what goes into each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from reflux.components.core.contract import alternatives, shipped, ships
from reflux.components.core.data.shards import Shard
from reflux.components.core.export.logits import Logits
from reflux.components.modalities.image import stress
from reflux.components.modalities.image.preprocess import resize
from reflux.components.stages.evaluate import figures, metrics, probe
from reflux.components.stages.evaluate.figures import clipped

_PICTURED_MISTAKES = 15
_PICTURED_CORRUPTIONS = 8
_PICTURED_CONFUSIONS = 8


def history(path: Path) -> figures.History:
    """Read a training run's history, its images counted over all phases."""
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    images, phases = columns["images"].astype(np.float64), columns["phase"]
    for border in np.flatnonzero(phases[1:] != phases[:-1]) + 1:
        images[border:] += images[border - 1]
    return columns | {"images": images}


def draw(
    folder: Path,
    histories: Mapping[str, figures.History],
    classes: Sequence[str],
    test: Shard,
    logits: Mapping[str, Logits],
    measured: Mapping[str, Any],
    side: int,
) -> None:
    """Draw every picture of the card, from each contender's logits [N, K] and the content of ``metrics.json``.

    ``side`` is that of the images that the student takes, in pixels.
    """
    labels, models = test.labels, metrics.models(ships(measured))
    student = logits[models["student"]]
    counts = {name: metrics.confusion(logits[kind], labels) for name, kind in models.items()}
    figures.learning_curves(histories, folder / "learning-curves.png")
    figures.confusion_matrix(counts["student"], classes, folder / "confusion-matrix.png")
    recalls = {name: metrics.recalls(own) for name, own in counts.items()}
    figures.class_recall(recalls, classes, folder / "class-recall.png")
    bins = {name: metrics.reliability(logits[kind], labels) for name, kind in models.items()}
    by_model = {**measured, **measured["shipped"]}
    errors = {name: by_model[kind]["ece"] for name, kind in models.items()}
    confidence = metrics.confidences(student)
    shares = np.histogram(confidence, bins=metrics.BINS, range=(0, 1))[0] / len(labels)
    figures.reliability_diagram(bins, errors, shares, folder / "reliability.png")
    points = {name: by_model[kind] for name, kind in {**models, **alternatives(measured)}.items()}
    sizes = {name: (own["size_bytes"], own["accuracy"]) for name, own in points.items()}
    figures.size_accuracy(sizes, folder / "size-accuracy.png")
    worst = metrics.worst_mistakes(student, labels, _PICTURED_MISTAKES)
    predicted = {name: [clipped(classes[k]) for k in logits[kind].argmax(axis=1)] for name, kind in models.items()}
    true = [clipped(classes[label]) for label in labels]
    captions = [(true[row], f"says {predicted['student'][row]}, {confidence[row]:.0%}") for row in worst]
    title = "Most confident mistakes" if len(worst) else "No mistakes on the test split"
    figures.mistakes(np.array(test.images[worst]), captions, title, folder / "worst-mistakes.png")
    disputed = metrics.worst_mistakes(student, logits["teacher"].argmax(axis=1), _PICTURED_MISTAKES)
    captions = [
        (f"teacher: {predicted['teacher'][row]}", f"student: {predicted['student'][row]} ({true[row]})")
        for row in disputed
    ]
    title = "Teacher and student disagree (true class)" if len(disputed) else "Teacher and student agree on every image"
    figures.mistakes(np.array(test.images[disputed]), captions, title, folder / "disagreements.png")
    rows = probe.spread(labels, _PICTURED_CORRUPTIONS)
    images, own = resize(test.images[rows], side).transpose(0, 2, 3, 1), shipped(measured)
    strips = [(f"unchanged\n{own['accuracy']:.1%}", images)]
    for kind, changed in stress.corrupted(images, test.ids[rows]):
        strips.append((f"{kind}\n{own[f'{kind}_accuracy']:.1%}", changed))
    figures.strips(strips, "Test images in each corruption", folder / "corruptions.png")
    strips = []
    for each in measured["confusions"]:
        pair = classes.index(each["true"]), classes.index(each["predicted"])
        worst = metrics.worst_mistakes(student, labels, _PICTURED_CONFUSIONS, pair)
        names = [clipped(classes[label]) for label in pair]
        label = f"{names[0]}, taken\nfor {names[1]}\n{each['n']:,} of {each['of']:,}"
        strips.append((label, np.array(test.images[worst])))
    if strips:
        figures.strips(strips, "Likeliest confusions of the shipped student", folder / "confusions.png")
