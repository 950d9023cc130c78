"""From an image file to pixels: decoding, and the crops that a network sees of a large image."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from kdedge.core.errors import DataError
from kdedge.core.pictures import opened
from kdedge.core.recipe import Augment

View = Callable[[Image.Image], Tensor]
"""An RGB image -> (3, side, side) uint8."""


def decode(path: Path) -> Image.Image:
    """The image in RGB.

    Raises:
        DataError: it names the file.
    """
    with opened(path) as image:
        return image.convert("RGB")


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width as the file's header says.

    Raises:
        DataError: it names the file.
    """
    with opened(path) as image:
        return image.height, image.width


def pixels(image: Image.Image) -> Tensor:
    """(3, H, W) uint8."""
    tensor: Tensor = v2.functional.pil_to_tensor(image)
    return tensor


def train_view(side: int, augment: Augment) -> View:
    """A random resized crop, mirrored half of the time if so asked; draws from torch's global generator."""
    low, high = augment.crop_scale
    if low > high:
        raise DataError(
            "data.augment.crop_scale is empty",
            f"{low} is above {high}",
            f"--set data.augment.crop_scale=[{high},{low}]",
        )
    crop = v2.RandomResizedCrop(side, scale=(low, high), antialias=True)
    mirror = [v2.RandomHorizontalFlip()] if augment.flip else []
    view: View = v2.Compose([crop, *mirror, v2.PILToTensor()])
    return view


def eval_view(side: int) -> View:
    """The central crop of the image, its shorter side resized to 256/224 of the crop's."""
    view: View = v2.Compose([v2.Resize(round(side * 256 / 224), antialias=True), v2.CenterCrop(side), v2.PILToTensor()])
    return view
