import copy

import pytest
from torch import nn

from reflux.components.core.errors import UserError
from reflux.components.core.runtime.world import ALONE, World
from reflux.components.core.training.parallel import data_parallel


def test_a_single_process_trains_the_network_itself():
    network = nn.Linear(2, 2)
    with data_parallel(network, ALONE, sync_batch_norm=True) as trained:
        assert trained is network


def test_a_batch_norm_of_another_kind_is_refused():
    class Odd(nn.BatchNorm2d):
        pass

    norm = Odd(3)
    before = copy.copy(vars(norm))
    with (
        pytest.raises(UserError, match="does not know this network's Odd: set sync_batch_norm to false"),
        data_parallel(nn.Sequential(norm), World(0, 2), sync_batch_norm=True),
    ):
        pass
    assert vars(norm) == before
