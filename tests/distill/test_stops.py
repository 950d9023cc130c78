"""What stops a training: numbers that are none, too little memory, too little disk."""

import shutil
import weakref
from collections import namedtuple
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdedge.core.errors import KdedgeError, TrainingError
from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Step
from kdedge.distill.job import Job
from kdedge.distill.logs import read_rows
from kdedge.distill.trainer import train

MakeJob = Callable[..., Job]


class Poison(Method):
    """A term that stops being a number after so many steps."""

    Config = MethodConfig
    needs_teacher = False
    steps = 0

    def __init__(self, config: MethodConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)

    def loss(self, step: Step) -> dict[str, Tensor]:
        Poison.steps += 1
        scale = float("nan") if Poison.steps == 7 else 0.0
        return {"poison/slow": scale * step.student.logits.sum()}


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the method known."""
    METHODS.names()
    monkeypatch.setattr(METHODS, "_entries", METHODS._entries | {"poison": Poison})
    monkeypatch.setattr(Poison, "steps", 0)


def test_loss_that_is_not_finite_stops_the_training_and_names_the_term(make_job: MakeJob, poison: None) -> None:
    job = make_job({"epochs": 3, "methods": [{"name": "poison"}]})  # four steps an epoch
    with pytest.raises(TrainingError, match=r"'poison/slow' is not finite: first in epoch 2, step 3"):
        train(job)
    assert [path.name for path in job.checkpoints.iterdir()] == ["epoch-0001"]
    assert len(read_rows(job.folder / "log.csv")) == 1
    kept = load_file(job.checkpoints / "epoch-0001/student.safetensors")
    assert all(value.isfinite().all() for value in kept.values())


def test_learning_rate_that_is_too_high_is_told_by_the_term_it_breaks(make_job: MakeJob) -> None:
    with pytest.raises(TrainingError, match="'cross_entropy' is not finite: first in epoch 1") as caught:
        train(make_job({"epochs": 2, "optimizer": {"lr": 1e30}}))
    assert caught.value.exit_code == 2
    assert "lower optimizer.lr" in str(caught.value)


class Hungry(nn.Module):
    """Takes up to 16 images; what a failed step made is let go before the next attempt."""

    def __init__(self, inner: nn.Module, error: Exception) -> None:
        super().__init__()
        self.inner, self.error = inner, error
        self.feature_points = inner.feature_points
        self.made: list[weakref.ref[Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not any(reference() is not None for reference in self.made), "a failed step is still in memory"
        answer: Tensor = self.inner(images)
        if self.training and len(images) > 16:
            self.made.append(weakref.ref(answer))
            raise type(self.error)(*self.error.args)
        return answer


CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"
)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), CPU_ERROR], ids=["cuda", "cpu"])
def test_out_of_memory_names_a_batch_that_fits(
    make_job: MakeJob, small: Callable[[], nn.Module], error: Exception
) -> None:
    job = make_job({"epochs": 1}, {"epochs": 1, "batch": 64}, student=Hungry(small(), error))
    with pytest.raises(TrainingError) as caught:
        train(job)
    assert str(caught.value) == (
        "student: out of memory: a batch of 64 does not fit; one of 16 does\n  --set phases.1.batch=16"
    )


def test_an_error_that_is_not_about_memory_keeps_its_traceback(
    make_job: MakeJob, small: Callable[[], nn.Module]
) -> None:
    job = make_job({"epochs": 1, "batch": 64}, student=Hungry(small(), RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        train(job)


def test_training_asks_for_disk_space_before_it_starts(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 2**20, 2**20))
    job = make_job({"epochs": 1})
    with pytest.raises(KdedgeError, match=r"has 1 MiB of free disk: the run may write up to 32 MiB"):
        train(job)
    assert not job.folder.exists()
