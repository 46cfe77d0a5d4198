"""``python -m reflux.components.advice.teachers REQUEST``: ranks candidate teachers for the dataset that was ingested.

REQUEST is JSON: ``names``, ``sizes`` (empty for the usual ones), ``minutes``, ``download`` and ``take`` (a name that
must be among the candidates, or null). It ends with 0 and leaves the ranking and its picture in ``.reflux/teachers``,
or with 2 and one sentence.
"""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from reflux.components.advice.teachers.candidates import candidates, find
from reflux.components.advice.teachers.figure import accuracy_against_cost
from reflux.components.advice.teachers.ranking import SIZES, costs, rank, sample, sizes_of
from reflux.components.advice.teachers.result import PICTURE, Ranking, write
from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.data.shards import join, open_shard, read_dataset
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.runtime.progress import bar


def main(request: dict[str, Any]) -> Ranking:
    """Rank the candidates, and keep the ranking with its picture.

    Raises:
        UserError: a candidate or its weights are wrong, or the images are too few.
    """
    params, ingested = load_params(), ARTIFACTS / "ingest"
    known = candidates(request["names"], params.pretrain.model, params.pretrain.weights, request["download"])
    if request["take"]:
        find(request["take"], known)
    device = resolve_device(params.run.device, params.run.threads, deterministic=False)
    classes = read_dataset(ingested / "images.json").classes
    train, val = (open_shard(ingested / "shards" / split, params.run.workers) for split in ("train", "val"))
    pixels, labels = sample(join(train, val))
    counts, minutes = read_json(ingested / "dataset.json")["counts"], request["minutes"]
    sizes = request["sizes"] or sorted({*SIZES, params.finetune.image_size})
    pairs = [(candidate, size) for candidate in known for size in sizes_of(candidate, sizes)]
    with bar("teachers", "measuring the speed of", len(pairs), "networks and sizes") as measuring:
        timed, left_out = costs(pairs, params, counts, len(classes), minutes, measuring.advance)
    if not timed:
        raise UserError(f"No teacher can be asked. {left_out[0]}")
    with ExitStack() as stack:

        def progress(images: int) -> Callable[[int], None]:
            return stack.enter_context(bar("teachers", "features of", images)).advance

        ranking = rank(timed, pixels, labels, classes, minutes, device, left_out, progress)
    accuracy_against_cost(ranking.rows, PICTURE)
    write(ranking)
    return ranking


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(EXIT_USER_ERROR)
