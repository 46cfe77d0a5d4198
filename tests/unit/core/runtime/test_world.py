import torch

from reflux.components.core.runtime.world import ALONE, World


def test_the_shards_of_a_split_are_all_of_it_in_order():
    for count, size in ((7, 2), (1, 3), (0, 2), (12, 4)):
        rows = [row for rank in range(size) for row in World(rank, size).shard(count)]
        assert rows == list(range(count))


def test_a_single_process_needs_no_process_group():
    rows = torch.ones(3, 1)
    assert ALONE.sum(rows) is rows
    assert ALONE.all_gather(rows, 3) is rows
    assert ALONE.broadcast("value") == "value"
