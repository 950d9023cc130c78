"""Every registered method goes on, after an interruption, as if there had been none; no teacher changes meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainings import left, train_until

from kdedge.distill.base import METHODS
from kdedge.distill.job import Job
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import train
from kdedge.models.zoo import build_model

SHAPE, CLASSES = (1, 8, 8), 4


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("resnet8", {}, CLASSES, SHAPE)


@pytest.mark.parametrize("name", METHODS.names())
def test_interrupted_training_by_a_method_ends_in_the_same_bytes_and_leaves_the_teacher_as_it_was(
    name: str, make_job: Callable[..., Job], teacher: FrozenTeacher, tmp_path: Path
) -> None:
    def job(folder: str) -> Job:
        parts: dict[str, Any] = {"student": network(1), "folder": tmp_path / folder}
        if METHODS.get(name).needs_teacher:
            parts["teachers"] = (teacher,)
        if METHODS.get(name).needs_peers:
            parts["peers"] = (network(2),)
        return make_job({"epochs": 3, "methods": [{"name": name}]}, **parts)  # four steps an epoch

    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    train(job("whole"))
    for step in (2, 6):
        train_until(job("parts"), step)
    train(job("parts"))
    assert left(job("parts")) == left(job("whole"))
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in teacher.parameters())
