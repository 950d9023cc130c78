from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from kdedge.core.deployment import Export, Quantization
from kdedge.core.errors import ModelError
from kdedge.core.stats import output_error
from kdedge.export.int8 import to_int8
from kdedge.export.onnx import load
from kdedge.export.precision import to_fp16
from kdedge.export.preprocess import preprocess_nodes

Write = Callable[..., Path]
Infer = Callable[[Path, NDArray[Any]], NDArray[np.float32]]
MEAN, STD = [0.48, 0.45, 0.40], [0.23, 0.22, 0.25]
PHOTOS = Path(sklearn.datasets.__file__).parent / "images"


def in_torch(net: nn.Module, pixels: NDArray[np.uint8], dtype: torch.dtype) -> NDArray[np.float32]:
    """Resized by torchvision, in uint8 with rounding or in float, then normalized."""
    steps = [v2.ToDtype(dtype, scale=True), v2.Resize((16, 16), antialias=True), v2.ToDtype(torch.float32, scale=True)]
    images = v2.Compose([*steps, v2.Normalize(MEAN, STD)])(torch.tensor(pixels).permute(0, 3, 1, 2))
    with torch.no_grad():
        return net(images).numpy()


@pytest.fixture
def still(net: nn.Sequential) -> Any:
    yield net.eval()
    net.train()


@pytest.mark.parametrize("photo", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.uint8, 5e-3)])
def test_graph_equals_torchvision_from_the_jpeg_on(
    still: nn.Module, pixels_fp32: Path, infer: Infer, photo: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Within half a grey level where torchvision rounds."""
    with Image.open(PHOTOS / photo) as image:
        pixels = np.asarray(image.convert("RGB"))[None]
    assert pixels.shape == (1, 427, 640, 3)
    error, _ = output_error(in_torch(still, pixels, dtype), infer(pixels_fp32, pixels))
    assert error < tolerance


def test_graph_enlarges_images_that_are_too_small(still: nn.Module, pixels_fp32: Path, infer: Infer) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 5, 3), dtype=np.uint8)
    np.testing.assert_allclose(infer(pixels_fp32, pixels), in_torch(still, pixels, torch.float32), atol=1e-4)


def test_graph_only_normalizes_images_of_its_own_size(fp32: Path, pixels_fp32: Path, infer: Infer) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    images = ((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    np.testing.assert_allclose(infer(pixels_fp32, pixels), infer(fp32, np.ascontiguousarray(images)), atol=1e-5)


@pytest.mark.parametrize("quantization", [Quantization(), Quantization(activations="int8", symmetric=True)])
def test_pixels_stay_in_float_in_smaller_precisions(
    pixels_fp32: Path, photos: NDArray[np.uint8], infer: Infer, tmp_path: Path, quantization: Quantization
) -> None:
    fp16, int8 = tmp_path / "fp16.onnx", tmp_path / "int8.onnx"
    to_fp16(pixels_fp32, fp16)
    to_int8(pixels_fp32, int8, photos, Export(quantization=quantization))
    exact = infer(pixels_fp32, photos)
    assert output_error(exact, infer(fp16, photos))[0] < 5e-3
    assert output_error(exact, infer(int8, photos))[0] < 0.1
    for path in (fp16, int8):
        model = load(path)
        names = preprocess_nodes(model)
        assert [name.partition("/")[2] for name in names[:5]] == ["cast", "resize", "mul", "add", "transpose"]
        chain = [node for node in model.graph.node if node.name in names[:5]]
        assert all(after.input[0] == before.output[0] for before, after in pairwise(chain))


def test_preprocess_needs_an_opset_with_antialiasing(net: nn.Sequential, write: Write, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"export.preprocess with opset 17.*\n  --set export.opset=18"):
        write(net, tmp_path / "model.onnx", preprocess=True, opset=17)
