"""Test images as small pictures inside the page."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.core.recipe import Normalize

SIDE = 72
"""Pixels that an inlined image has at most on its longer side."""
SMALL = 40
"""Pixels below which an image is shown with hard edges, as blurred it would tell nothing."""


@dataclass(frozen=True)
class Thumbnail:
    address: str
    """data:image/...;base64,..."""
    sharp: bool
    """Show its pixels as squares."""


def pixels(image: NDArray[Any], normalize: Normalize | None) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) of a normalized (C, H, W), or of (H, W, C) uint8; other channels than 3 become their mean."""
    if normalize is not None:
        mean, std = (np.array(values, dtype=np.float64)[:, None, None] for values in (normalize.mean, normalize.std))
        restored = 255 * (image * std + mean)
        image = np.nan_to_num(restored).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    if image.shape[2] == 3:
        return image
    return np.asarray(image.mean(axis=2).round(), dtype=np.uint8)


def thumbnail(image: NDArray[Any], normalize: Normalize | None) -> Thumbnail:
    return encoded(pixels(image, normalize), SIDE)


def encoded(image: NDArray[np.uint8], side: int, photo: bool = False) -> Thumbnail:
    """With at most `side` pixels on its longer side.

    Args:
        photo: as a JPEG, unless it is too small to be blurred.
    """
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)  # only ever makes it smaller
    sharp = max(picture.size) <= SMALL
    form = "JPEG" if photo and not sharp else "PNG"
    file = io.BytesIO()
    picture.save(file, form, optimize=True)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{form.lower()};base64,{text}", sharp)
