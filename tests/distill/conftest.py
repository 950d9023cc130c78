"""Trainings that take a second: a few 8x8 images whose class is written in their brightness, and small networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdedge.core.recipe import Data, Normalize, Run
from kdedge.core.training import Phase
from kdedge.data.sets import Dataset, ImageSet
from kdedge.distill.job import Job
from kdedge.distill.teachers import FrozenTeacher
from kdedge.models.features import FeaturePoint
from kdedge.models.zoo import build_model

SHAPE, LABELS = (1, 8, 8), ("dark", "dim", "light", "bright")
NORMALIZE = Normalize(mean=(0.5,), std=(0.25,))


def images(count: int, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(LABELS)
    noise = torch.randint(0, 64, (count, *SHAPE), generator=generator)
    pixels = (noise + 64 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8)
    return ImageSet(pixels, labels, torch.arange(count))


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    parts = [images(count, seed) for seed, count in enumerate((64, 16, 32))]
    return Dataset("brightness", *parts, labels=LABELS, normalize=NORMALIZE, image_shape=SHAPE)


class Small(nn.Module):
    """Two convolutions and a classifier; one batch norm, two feature points."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Conv2d(1, 4, 3, padding=1)
        self.stage2 = nn.Sequential(nn.Conv2d(4, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.linear = nn.Linear(8, len(LABELS))
        self.feature_points = {"stage1": FeaturePoint("stage1", 4, 1), "stage2": FeaturePoint("stage2", 8, 2)}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.stage2(self.stage1(images)).mean(dim=(2, 3)))


@pytest.fixture
def small() -> Callable[[], nn.Module]:
    def build(seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return Small()

    return build


@pytest.fixture
def teacher() -> FrozenTeacher:
    torch.manual_seed(7)
    return FrozenTeacher(build_model("resnet8", {}, len(LABELS), SHAPE), NORMALIZE)


@pytest.fixture
def make_job(tmp_path: Path, dataset: Dataset, small: Callable[[], nn.Module]) -> Callable[..., Job]:
    """`make_job({"epochs": 1, "batch": 16}, ..., run={...}, student=..., teacher=..., folder=...)`"""

    def make(*phases: dict[str, Any], run: dict[str, Any] | None = None, **parts: Any) -> Job:
        defaults: dict[str, Any] = {
            "label": "student",
            "student": small(),
            "dataset": dataset,
            "data": Data(name="digits", workers=0),
            "phases": tuple(Phase.model_validate({"batch": 16} | phase) for phase in phases),
            "run": Run.model_validate({"accelerator": "cpu", "threads": 1} | (run or {})),
            "seed": 0,
            "folder": tmp_path / "run",
            "identity": "the same",
        }
        return Job(**(defaults | parts))

    return make
