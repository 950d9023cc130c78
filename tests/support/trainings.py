"""Trainings that are cut short, and what trainings leave."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from kdedge.distill.base import METHODS, Method
from kdedge.distill.job import Job
from kdedge.distill.trainer import PhaseRun, train

PLAIN = {"momentum": 0, "weight_decay": 0, "schedule": "constant"}
"""An optimizer that does nothing but follow the gradient."""
STILL = {"lr": 1e-30, **PLAIN}
"""One that moves no weight."""


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def assert_same_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [key for key, value in expected.items() if not torch.equal(found[key], value)] == []


def left(job: Job) -> dict[str, bytes]:
    """The weights that a training has written, by file."""
    return {path.name: path.read_bytes() for path in job.folder.glob("*.safetensors")}


def train_until(job: Job, step: int) -> None:
    """Train, and be interrupted at a step, which is counted from 0."""
    take, numbers = PhaseRun.step, iter(range(step))

    def halting(phase: PhaseRun, *arguments: Any) -> None:
        if next(numbers, None) is None:
            raise KeyboardInterrupt
        take(phase, *arguments)

    with patch.object(PhaseRun, "step", halting), pytest.raises(KeyboardInterrupt):
        train(job)


def known(**methods: type[Method]) -> Iterator[None]:
    """While it is suspended, the methods of a test are found by their names."""
    METHODS.names()
    with patch.object(METHODS, "_entries", METHODS._entries | methods):
        yield
