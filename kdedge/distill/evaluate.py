"""What a network answers on a set of images."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdedge.core.recipe import Normalize
from kdedge.data.loader import Normalizer, eval_batches
from kdedge.data.sets import FolderSet, ImageSet
from kdedge.distill.judge import ClassJudge, Judge

BATCH, VALUES = 500, 2**23
"""Images at a time, at most; fewer of large ones, so that no more than this many pixel values are in a batch."""


CLASSES = ClassJudge()


def batch_size(images: ImageSet | FolderSet) -> int:
    return max(1, min(BATCH, VALUES // math.prod(images.image_shape)))


@torch.no_grad()
def answers(
    forward: Callable[[Tensor], Tensor], images: ImageSet | FolderSet, device: torch.device, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """What `forward` makes of all images in float32, and their labels, both on the CPU, in the set's order."""
    outputs, labels = [], []
    for batch in eval_batches(images, batch_size(images), device, workers).epoch(0):
        outputs.append(forward(batch.images).float().cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(outputs), torch.cat(labels)


def predict(
    model: nn.Module,
    images: ImageSet | FolderSet,
    normalize: Normalize,
    device: torch.device,
    workers: int = 0,
    judge: Judge = CLASSES,
) -> tuple[Tensor, Tensor]:
    """What the judge keeps of a network's answers in eval mode, and the labels; the network's mode is put back."""
    training = model.training
    model.eval()
    try:
        normalizer = Normalizer(normalize).to(device)
        return answers(lambda pixels: judge.read(model(normalizer(pixels)).float().cpu()), images, device, workers)
    finally:
        model.train(training)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Top-1 as a fraction, in double precision: a budget of 0.95 is kept by 19 of 20."""
    return int((logits.argmax(1) == labels).sum()) / len(labels)
