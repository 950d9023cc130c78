"""A small depthwise-separable network with lived-in batch norms, and its ONNX files, made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from kdedge.core.deployment import Export
from kdedge.core.recipe import Normalize
from kdedge.engine.base import backend
from kdedge.engine.rows import run_rows
from kdedge.export.onnx import export_onnx

Images = NDArray[Any]

SHAPE = (3, 16, 16)
LABELS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
NORMALIZE = Normalize(mean=(0.48, 0.45, 0.40), std=(0.23, 0.22, 0.25))


def separable(inside: int, outside: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False),
        nn.BatchNorm2d(inside),
        nn.ReLU(),
        nn.Conv2d(inside, outside, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    ]


def small_net() -> nn.Sequential:
    """In train mode, as a trainer leaves it."""
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, len(LABELS))]
    net = nn.Sequential(*stem, *separable(8, 16, 2), *separable(16, 16, 1), *head)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        for _ in range(20):
            net(torch.randn(32, *SHAPE))
    return net


@pytest.fixture(scope="session")
def net() -> nn.Sequential:
    return small_net()


@pytest.fixture(scope="session")
def images() -> Images:
    return np.random.default_rng(1).standard_normal((64, *SHAPE), dtype=np.float32)


@pytest.fixture(scope="session")
def photos() -> Images:
    """uint8 NHWC of another size than the network's."""
    return np.random.default_rng(2).integers(0, 256, (8, 24, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """`write(net, path, opset=20, ...)` exports with those keys of a preset."""

    def export(net: nn.Module, path: Path, **keys: Any) -> Path:
        export_onnx(net, path, SHAPE, Export(**keys), NORMALIZE, LABELS)
        return path

    return export


@pytest.fixture(scope="session")
def infer() -> Callable[[Path, Images], Images]:
    def run(path: Path, images: Images) -> Images:
        with backend("ort").open(path, {"threads": 1}) as session:
            return run_rows(session, images)["logits"]

    return run


@pytest.fixture(scope="session")
def fp32(net: nn.Sequential, write: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(net, tmp_path_factory.mktemp("fp32") / "model.onnx")


@pytest.fixture(scope="session")
def pixels_fp32(net: nn.Sequential, write: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With resizing and normalization in the graph."""
    return write(net, tmp_path_factory.mktemp("pixels") / "model.onnx", preprocess=True)
