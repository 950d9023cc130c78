"""What losses on features share: means over the places, maps of one size, unit vectors, and their inner products."""

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST = 1e-12
"""Length below which a vector has no direction."""


def pooled(feature: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C): mean over the places, in float32."""
    return feature.float().sum(dim=(2, 3)) / feature.shape[2:].numel()  # mean()'s gradient is slow for channels_last


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (N, C, H, W) of any widths, the larger averaged down to the smaller one's height and width."""
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    left, right = (x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (student, teacher))
    return left, right


def resampled(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (N, C, H, W) in float32, the student's brought to the teacher's height and width, bilinearly."""
    student, teacher = student.float(), teacher.float()
    if student.shape[2:] != teacher.shape[2:]:
        student = F.interpolate(student, teacher.shape[2:], mode="bilinear", align_corners=False)
    return student, teacher


def products(left: Tensor, right: Tensor) -> Tensor:
    """(..., M, C), (..., N, C) -> (..., M, N): inner products of the rows, in float32 under autocast as well."""
    with torch.autocast(left.device.type, enabled=False):
        return left.float() @ right.float().mT


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """Each vector along a dimension over its L2 norm, in float32; zeros stay zeros, without a gradient."""
    vectors = vectors.float()
    length = vectors.norm(dim=dim, keepdim=True)
    return torch.where(length > SHORTEST, vectors / length.clamp_min(SHORTEST), 0.0)
