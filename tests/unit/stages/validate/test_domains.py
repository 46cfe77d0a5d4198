"""How two domains differ, in a sentence."""

import numpy as np

from reflux.components.core.data.shards import UNLABELED, Shard
from reflux.components.stages.validate.domains import compare_domains, sentence


def shard(seed: int, labels: list[int], brighter: int = 0) -> Shard:
    rng = np.random.default_rng(seed)
    images = (rng.integers(0, 128, (len(labels), 8, 8, 1)) + brighter).astype(np.uint8)
    return Shard(images, np.array(labels), rng.integers(0, 2**63, len(labels), np.uint64))


def test_one_domain_is_like_itself():
    target = [shard(1, [0, 1] * 20), shard(2, [UNLABELED] * 60)]
    tests = compare_domains(shard(0, [0, 1] * 50), target, ("a", "b"))
    assert {test.name for test in tests} == {"class balance", "brightness", "contrast", "sharpness"}
    assert (tests[0].old, tests[0].new, tests[1].new) == (100, 40, 100), (
        "all images count, and labels where there are any"
    )
    assert sentence(tests).startswith("the source domain looks like the dataset in all that was compared")


def test_what_differs_most_is_named_first():
    source, target = shard(0, [0] * 80 + [1] * 20, brighter=60), [shard(1, [0, 1] * 50)]
    said = sentence(compare_domains(source, target, ("a", "b")))
    assert said.startswith("the source domain differs from the dataset in brightness (1.00), class balance (0.30)")
