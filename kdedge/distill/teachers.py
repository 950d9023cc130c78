"""The teacher of a training: frozen, in eval mode, fed what it was trained on."""

import torch
from torch import Tensor, nn

from kdedge.core.recipe import Normalize
from kdedge.data.loader import Normalizer


class FrozenTeacher(nn.Module):
    """A network that only answers; `train()` leaves it, and so its batch norms, in eval mode."""

    model: nn.Module

    def __init__(self, model: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.normalize = Normalizer(normalize)

    def train(self, mode: bool = True) -> "FrozenTeacher":  # noqa: ARG002
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) pixels, uint8 -> (N, classes)."""
        logits: Tensor = self.model(self.normalize(images))
        return logits
