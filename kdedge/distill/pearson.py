"""Features compared by correlation, which neither their scale nor their offset changes.

W. Cao, Y. Zhang, J. Gao, A. Cheng, K. Cheng, J. Cheng: "PKD: General Distillation Framework for Object Detectors via
Pearson Correlation Coefficient", NeurIPS 2022, arXiv:2207.02039.  Half the mean squared difference of features whose
channels have zero mean and unit variance over samples and places is 1 - r, the mean over the channels of r.
"""

import torch
from torch import Tensor

from kdedge.distill.maps import SHORTEST, products, same_size

CONSTANT = 1e-3
"""Deviation over length of a channel, below which it counts as constant."""


def deviations(feature: Tensor) -> Tensor:
    """(N, C, H, W) -> (N*H*W, C): each channel less its mean, of length 1; zeros, without a gradient, if constant."""
    channels = feature.float().permute(0, 2, 3, 1).flatten(0, 2)  # a view of what is channels_last
    gap = channels - channels.mean(dim=0)
    length = gap.norm(dim=0)
    varies = (length > CONSTANT * channels.norm(dim=0)) & (length > SHORTEST)
    return gap * torch.where(varies, 1 / length.clamp_min(SHORTEST), 0.0)


def pearson_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar, 0..2, from (N, C, H, W) features of one width: 1 - r of each channel and the teacher's same one."""
    left, right = map(deviations, same_size(student, teacher))
    return 1 - (left * right).sum(dim=0).mean()


def likeness(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar, 0..1, from (N, C, H, W) features of any widths: |r|, the mean over each channel with each other's."""
    left, right = map(deviations, same_size(student, teacher))
    return products(left.mT, right.mT).abs().mean()
