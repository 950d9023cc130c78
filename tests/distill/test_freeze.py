"""Parts of a student that a phase leaves as they are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from trainings import assert_same_weights, left, train_until, weights

from kdedge.core.errors import ModelError
from kdedge.distill.freeze import frozen_modules
from kdedge.distill.job import Job
from kdedge.distill.trainer import train

MakeJob = Callable[..., Job]
HARSH = {"optimizer": {"lr": 0.1, "weight_decay": 0.1}}
"""What is not frozen cannot stay as it was."""
SELF = {"methods": [{"name": "self_distill"}]}


def changed(before: dict[str, torch.Tensor], network: nn.Module) -> set[str]:
    """What has moved, by the first part of its path."""
    return {key.split(".")[0] for key, value in network.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize(
    ("patterns", "free"),
    [
        (["stage1"], {"stage2", "linear"}),
        (["stage2"], {"stage1", "linear"}),  # gradients go through it
        (["stage2.*"], {"stage1", "linear"}),
        (["stage?", "linear"], set()),
        (["*"], set()),
    ],
)
@pytest.mark.parametrize("ema", [None, 0.5])
def test_frozen_parts_stay_to_the_bit_and_the_others_train(
    make_job: MakeJob, patterns: list[str], free: set[str], ema: float | None
) -> None:
    job = make_job({"epochs": 2, "freeze": patterns, "ema": ema, **SELF, **HARSH})  # validated in between
    before = weights(job.student)
    train(job)
    assert changed(before, job.student) == free


def test_batch_norm_of_a_frozen_part_keeps_its_statistics_and_uses_them(make_job: MakeJob) -> None:
    seen = []
    job = make_job({"epochs": 1, "freeze": ["stage2.1"]})
    job.student.stage2[1].running_mean.fill_(3.0)
    job.student.stage2[1].register_forward_hook(lambda norm, inputs, output: seen.append((norm, inputs[0], output)))
    train(job)
    norm, feature, output = seen[0]
    torch.testing.assert_close(output, (feature - 3) / (1 + norm.eps) ** 0.5)
    assert norm.running_mean.tolist() == [3.0] * 8
    assert norm.num_batches_tracked.item() == 0


def test_layers_of_methods_train_beside_a_student_that_does_not(make_job: MakeJob, tmp_path: Path) -> None:
    jobs = [make_job({"epochs": n, "freeze": ["*"], **SELF}, folder=tmp_path / str(n)) for n in (1, 2)]
    for job in jobs:
        train(job)
    first, second = (load_file(job.folder / "methods.safetensors") for job in jobs)
    assert not torch.equal(
        first["self_distill.heads.stage1.linear.weight"], second["self_distill.heads.stage1.linear.weight"]
    )


def test_next_phase_trains_what_was_frozen(make_job: MakeJob) -> None:
    job = make_job({"epochs": 1, "freeze": ["*"], **SELF}, {"epochs": 1, **HARSH})
    before = weights(job.student)
    train(job)
    assert changed(before, job.student) == {"stage1", "stage2", "linear"}
    assert all(p.requires_grad for p in job.student.parameters())


def test_part_is_frozen_after_it_has_trained(make_job: MakeJob, tmp_path: Path) -> None:
    one = make_job({"epochs": 1}, folder=tmp_path / "one")
    train(one)
    trained = weights(one.student)
    two = make_job({"epochs": 1}, {"epochs": 1, "freeze": ["stage?"], **HARSH}, folder=tmp_path / "one")
    train(two)
    assert changed(trained, two.student) == {"linear"}


@pytest.mark.parametrize("step", [2, 6, 10])
def test_interrupted_training_of_frozen_parts_ends_in_the_same_bytes(
    make_job: MakeJob, tmp_path: Path, step: int
) -> None:
    def job(folder: str) -> Job:
        phases = {"epochs": 2, "freeze": ["stage2"], "ema": 0.9, **SELF}, {"epochs": 2, **SELF}
        return make_job(*phases, folder=tmp_path / folder)

    whole, halves = job("whole"), job("halves")
    train(whole)
    train_until(halves, step)
    train(job("halves"))
    assert left(halves) == left(whole)


def test_frozen_modules_are_those_that_a_pattern_fits(small: Callable[[], nn.Module]) -> None:
    student = small()
    assert frozen_modules(student, ["stage2.[01]", "linear"]) == [*student.stage2[:2], student.linear]


def test_pattern_that_fits_nothing_is_refused_with_the_nearest_module(make_job: MakeJob) -> None:
    with pytest.raises(ModelError) as caught:
        train(make_job({"epochs": 1, "freeze": ["stage2", "stage3"]}))
    assert str(caught.value).splitlines()[0].startswith("freeze: no module of the student fits 'stage3': did you mean ")


def test_frozen_student_is_the_same_in_all_its_weights(make_job: MakeJob) -> None:
    job = make_job({"epochs": 1, "freeze": ["*"], **SELF})
    before = weights(job.student)
    train(job)
    assert_same_weights(load_file(job.folder / "weights.safetensors"), before)
