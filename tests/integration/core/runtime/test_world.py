"""Collectives of two processes, and BatchNorm over the images of both."""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from reflux.components.core.runtime.world import ALONE, World
from reflux.components.core.teacher.soft_labels import SHARD_IMAGES, Format
from reflux.components.core.training.parallel import data_parallel, shard_of_batch
from reflux.components.modalities.image.models.pixel_model import pixel_model
from reflux.components.stages.distill.losses.ensembling import TemporalEnsembling
from reflux.components.stages.evaluate.scoring import on_device, predict_all
from reflux.components.stages.label.store import FilledStore, fill

ROWS = 7


def a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), BatchNormAct2d(4), nn.Conv2d(4, 3, 3),
        nn.BatchNorm2d(3, affine=False, momentum=None), nn.Flatten(), nn.Linear(3 * 4, 2), nn.BatchNorm1d(2),
    )  # fmt: skip


def whole_batch() -> torch.Tensor:
    """Far from 0, where a careless variance loses its digits."""
    return torch.randn(12, 2, 8, 8, generator=torch.Generator().manual_seed(1)) + 100


def learn(network: nn.Module, pixels: torch.Tensor, scale: float) -> None:
    for part in pixels.chunk(2):
        (network(part).square().sum() * scale / len(whole_batch())).backward()


def teach(indices: np.ndarray, views: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([indices % 1000, views, indices * 0], axis=1)).float()


def label(folder: Path, world: World) -> tuple[FilledStore, int]:
    """A store of three shards, and the number of records that all processes computed."""
    ids = np.arange(2 * SHARD_IMAGES + 7, dtype=np.uint64)
    done: list[int] = []
    filled = fill({"teacher": "one"}, ids, 2, Format(3, 0), 512, teach, done.append, kept=folder / "kept", world=world)
    return filled, sum(done)


def evaluate(world: World) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    models = [pixel_model("resnet8_slim", ("a", "b"), 12, 1, (0.5,), (0.25,)).eval() for _ in range(3)]
    images = np.random.default_rng(0).integers(0, 255, (ROWS, 12, 12, 1), np.uint8)
    teacher = on_device(models[0], torch.device("cpu"))
    return predict_all(images, teacher, {"student": models[1], "control": models[2]}, {}, lambda _count: None, world)


def answered(share: slice) -> torch.Tensor:
    """The means of the student's answers that remember a process's share of two batches."""
    remembered = TemporalEnsembling(classes=3, images=30, momentum=0.6, sharpness=2.0)
    student, teacher = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    for batch, images in ((slice(0, 12), order[:12]), (slice(12, 24), order[6:18])):
        remembered(student[batch][share], teacher[batch][share], images[share])
    return remembered.means


def of_two(rank: int, folder: str, port: int) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    world = World(rank, 2)
    results = {"sum": world.sum(torch.tensor([rank + 1.0, 10.0]))}
    share = world.shard(ROWS)
    results["gathered"] = world.all_gather(torch.arange(share.start, share.stop).view(-1, 1), ROWS)
    results["broadcast"] = world.broadcast({"a": [1, torch.ones(3)], "b": "text"} if world.first else None)
    results["nothing"] = world.broadcast(None)
    filled, done = label(Path(folder), world)
    results["label"] = (filled.key, filled.shards, filled.reused, filled.computed, done)
    results["logits"] = {name: torch.from_numpy(logits) for name, logits in evaluate(world).items()}
    given = torch.full((2,), float(rank))
    world.broadcast_parameters(iter([given]))
    results["given"] = given
    network = a_network()
    forwards = [vars(module).get("forward") for module in network.modules()]
    with data_parallel(network, world, sync_batch_norm=True) as trained:
        learn(trained, whole_batch()[shard_of_batch(world, 12, "batch_size")], world.size)
    assert [vars(module).get("forward") for module in network.modules()] == forwards
    del trained  # the process group can end only when nothing holds it
    results["means"] = answered(shard_of_batch(world, 12, "batch_size"))
    results["state"] = network.state_dict()
    results["gradients"] = [p.grad for p in network.parameters()]
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results_of_both(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(of_two, (str(folder), port), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_collectives_give_both_the_same(results_of_both: list[dict]):
    for results in results_of_both:
        assert results["sum"].tolist() == [3.0, 20.0]
        assert results["gathered"].flatten().tolist() == list(range(ROWS))
        assert (results["broadcast"]["b"], results["broadcast"]["a"][0], results["nothing"]) == ("text", 1, None)
        assert results["broadcast"]["a"][1].tolist() == [1, 1, 1]
        assert results["given"].tolist() == [0, 0]


def test_each_process_remembers_the_answers_of_both(results_of_both: list[dict]):
    of_one = answered(slice(None))
    assert of_one.isnan().any(1).sum() == 12
    for results in results_of_both:
        assert torch.equal(results["means"].nan_to_num(-1), of_one.nan_to_num(-1))


def test_labelling_is_shared_and_its_store_is_that_of_one(results_of_both: list[dict], tmp_path: Path):
    alone, done = label(tmp_path, ALONE)
    first, second = (results["label"] for results in results_of_both)
    assert first == (alone.key, alone.shards, 0, alone.computed, done)
    assert second == (alone.key, [], 0, alone.computed, done)
    assert label(tmp_path, ALONE)[0].computed == 0


def test_both_have_the_logits_of_all_test_images(results_of_both: list[dict]):
    alone = evaluate(ALONE)
    for results in results_of_both:
        assert set(results["logits"]) == set(alone) == {"teacher", "student", "control"}
        for name, logits in alone.items():
            assert torch.allclose(results["logits"][name], torch.from_numpy(logits), atol=1e-2), name


def test_batch_norm_over_both_is_batch_norm_over_the_whole_batch(results_of_both: list[dict]):
    """Statistics, their running means and all gradients, to 1e-4 of the largest; a batch is two micro-batches."""
    network = a_network()
    learn(network, whole_batch(), 1)
    for results in results_of_both:
        assert list(results["state"]) == list(network.state_dict())
        for name, tensor in network.state_dict().items():
            assert torch.allclose(results["state"][name], tensor, rtol=1e-4, atol=1e-4), name
        for mine, p in zip(results["gradients"], network.parameters(), strict=True):
            assert torch.allclose(mine, p.grad, rtol=1e-3, atol=1e-4 * float(p.grad.abs().max() + 1))
