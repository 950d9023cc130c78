"""Networks that train beside the student."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forkserver
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from trainings import PLAIN, STILL, assert_same_weights, left, train_until, weights

from kdedge.core.errors import ModelError
from kdedge.data.sets import Dataset
from kdedge.distill.evaluate import accuracy, predict
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.meter import TermMeter
from kdedge.distill.trainer import PhaseRun, train

MakeJob = Callable[..., Job]
Build = Callable[[int], nn.Module]
DML = {"methods": [{"name": "dml"}]}


def test_peers_learn_and_are_saved(make_job: MakeJob, small: Build, dataset: Dataset) -> None:
    peers = small(1), small(2)
    job = make_job({"epochs": 8, "optimizer": {"lr": 0.2}, **DML}, peers=peers)
    train(job)
    for number, peer in enumerate(peers):
        assert accuracy(*predict(peer, dataset.test, dataset.normalize, torch.device("cpu"))) > 0.6  # of four classes
        assert_same_weights(load_file(job.folder / f"peer{number}.safetensors"), peer.state_dict())
    assert len({network.linear.weight.detach().numpy().tobytes() for network in (job.student, *peers)}) == 3


def test_peer_and_student_take_one_step_of_gradient_descent(make_job: MakeJob, small: Build) -> None:
    """Against autograd by hand, each network by its own loss."""
    job = make_job({"epochs": 1, "batch": 64, "optimizer": {"lr": 0.1, **PLAIN}, **DML}, peers=(small(1),))
    phase = PhaseRun(make_fabric(job.run), job, 0, 0, None, None)
    batch = next(phase.loader.epoch(0))
    images = (batch.images.float() / 255 - 0.5) / 0.25
    twins = small(0).train(), small(1).train()
    logs = [twin(images).log_softmax(dim=1) for twin in twins]
    expected = []
    for twin, own, other in zip(twins, logs, reversed(logs), strict=True):
        told = (other.exp() * (other - own)).detach() + other.exp().detach() * (own.detach() - own)
        loss = F.nll_loss(own, batch.labels) + told.sum(dim=1).mean()
        gradients = torch.autograd.grad(loss, list(twin.parameters()), retain_graph=True)
        expected.append([p - 0.1 * g for p, g in zip(twin.parameters(), gradients, strict=True)])
    with phase.objective, phase.staff() as staff:
        phase.module.train()
        phase.step(batch, staff, 0, 0.0, TermMeter())
    for network, wanted in zip((job.student, *job.peers), expected, strict=True):
        torch.testing.assert_close(list(network.parameters()), wanted, rtol=1e-4, atol=1e-6)


def test_peer_of_another_kind_trains_beside_the_student(make_job: MakeJob, teacher: Any) -> None:
    peer = teacher.model.requires_grad_(True)
    before = weights(peer)
    train(make_job({"epochs": 1, **DML}, peers=(peer,)))
    assert not torch.equal(peer.linear.weight, before["linear.weight"])


@pytest.mark.parametrize("step", [2, 6, 10], ids=["first epoch", "second epoch", "second phase"])
def test_interrupted_training_with_peers_ends_in_the_same_bytes(
    make_job: MakeJob, small: Build, tmp_path: Path, step: int
) -> None:
    phases = {"epochs": 2, "ema": 0.9, **DML}, {"epochs": 2, **DML}  # four steps an epoch

    def job(folder: str, seed: int) -> Job:
        return make_job(*phases, peers=(small(seed),), folder=tmp_path / folder)

    whole = job("whole", 1)
    train(whole)
    train_until(job("halves", 1), step)
    train(job("halves", 9 if step > 4 else 1))  # what is kept replaces the weights that a network starts with
    assert left(job("halves", 1)) == left(whole)
    assert sorted(left(whole)) == ["methods.safetensors", "peer0.safetensors", "weights.safetensors"]


def test_peers_moving_average_is_what_counts_and_is_handed_to_the_next_phase(make_job: MakeJob, small: Build) -> None:
    phases = {"epochs": 2, "ema": 0.9, **DML}, {"epochs": 1, "optimizer": STILL, **DML}
    one = make_job(phases[0], peers=(small(1),))
    train(one)
    last = one.checkpoints / "epoch-0002"
    average, raw = (load_file(last / f"{name}.safetensors")["0.linear.weight"] for name in ("average_peers", "peers"))
    assert not torch.equal(average, raw)
    assert torch.equal(one.peers[0].linear.weight, average)
    two = make_job(*phases, peers=(small(2),))
    train(two)
    assert torch.equal(two.peers[0].linear.weight, average)


def test_method_that_needs_peers_is_refused_without(make_job: MakeJob) -> None:
    with pytest.raises(ModelError) as caught:
        train(make_job({"epochs": 1, **DML}))
    assert str(caught.value) == "method 'dml' needs peers: the recipe has none\n  add a peers: section"


RECIPE = """
version: 1
data: {name: digits, train_limit: 160, validation: 0.2}
student: {name: resnet8}
peers: [{name: resnet8}, {name: resnet8, options: {conv: depthwise}}]
phases: [{epochs: 1, batch: 32, methods: [{name: dml}]}]
baseline: false
run: {accelerator: cpu, threads: 1}
"""


def test_recipe_with_peers_leaves_them_beside_the_student(forkserver: Forkserver, tmp_path: Path) -> None:
    (tmp_path / "mutual.yaml").write_text(RECIPE)
    code, process = forkserver.run(["distill", "mutual.yaml"], tmp_path)
    assert code == 0, process.stderr
    student = next(tmp_path.glob("runs/mutual-*")) / "student"
    networks = [load_file(student / f"{name}.safetensors") for name in ("weights", "peer0", "peer1")]
    assert networks[0].keys() == networks[1].keys() != networks[2].keys()
    assert not torch.equal(networks[0]["linear.weight"], networks[1]["linear.weight"])


def test_phase_without_a_mutual_method_leaves_peers_as_they_are(
    make_job: MakeJob, small: Build, tmp_path: Path
) -> None:
    first = {"epochs": 1, "batch": 8, **DML}
    one = make_job(first, peers=(small(1),), folder=tmp_path / "one")
    train(one)
    two = make_job(first, {"epochs": 1, "ema": 0.9}, peers=(small(1),), folder=tmp_path / "two")
    train(two)
    assert_same_weights(weights(two.peers[0]), weights(one.peers[0]))
    assert_same_weights(load_file(two.folder / "peer0.safetensors"), weights(one.peers[0]))
