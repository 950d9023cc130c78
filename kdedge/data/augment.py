"""Augmentation of images in memory: a whole batch at once, in uint8, on the device that trains."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdedge.core.recipe import Augment

VIEWS = 2
"""Parts fixed views from what epochs draw, in the key of the random numbers."""


def mix(*key: int) -> int:
    """A seed for these numbers together; close keys give unrelated seeds."""
    return int(np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix(*key))


class Draws(NamedTuple):
    """What happens to each image, (N,) each; each image has its own row, whichever rank trains on it."""

    top: Tensor
    left: Tensor
    mirrored: Tensor

    def to(self, device: torch.device) -> "Draws":
        return Draws(*(column.to(device) for column in self))

    def rows(self, which: Tensor | slice) -> "Draws":
        return Draws(*(column[which] for column in self))


def draw(count: int, augment: Augment, key: torch.Generator) -> Draws:
    """Crop offsets in 0..2*padding and coin flips, drawn on the CPU so that every device sees the same."""
    top, left = torch.randint(2 * augment.crop_padding + 1, (2, count), generator=key)
    return Draws(top, left, torch.randint(2, (count,), generator=key, dtype=torch.bool))


def draw_view(count: int, augment: Augment, view: int) -> Draws:
    """A fixed view of the first `count` images of a set; that of an image depends on its place and `view` alone."""
    offsets = 2 * augment.crop_padding + 1
    ends = (offsets, offsets, 2)
    top, left, mirrored = (
        torch.randint(end, (count,), generator=generator(VIEWS, view, column)) for column, end in enumerate(ends)
    )
    return Draws(top, left, mirrored.bool())


def apply(images: Tensor, draws: Draws, augment: Augment) -> Tensor:
    """Crop and mirror a batch (N, C, H, W) as drawn; its shape stays."""
    if augment.crop_padding:
        images = crop(images, draws.top, draws.left, augment.crop_padding)
    if augment.flip:
        images = torch.where(draws.mirrored[:, None, None, None], images.flip(3), images)
    return images


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """Each image's H x W window of its zero-padded self, (top, left) being the window's corner in the padded image."""
    height, width = images.shape[2:]
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view: (N, C, top, left, H, W)
    return windows[torch.arange(len(images), device=images.device), :, top, left]
