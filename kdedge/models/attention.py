"""Attention over a feature map, for the branches of exits: maps of the same shape go in and come out.

Q. Wang et al.: "ECA-Net", CVPR 2020, arXiv:1910.03151 (eca: three to five weights);
J. Hu et al.: "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507 (se);
L. Yang et al.: "SimAM", ICML 2021 (simam: no weights);
L. Zhang, C. Bao, K. Ma: "Self-Distillation: Towards Efficient and Compact Neural Networks", TPAMI 2021,
doi:10.1109/TPAMI.2021.3067100 (sepconv).
"""

from collections.abc import Callable
from math import log2
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.blocks import depthwise_separable

Attention = Literal["eca", "se", "simam", "sepconv", "none"]


def eca_kernel(channels: int) -> int:
    """Odd size of the kernel over channels: |(log2 C + 1) / 2|, the next odd number where that is even."""
    size = int(abs((log2(channels) + 1) / 2))
    return size if size % 2 else size + 1


class ECA(nn.Module):
    """Scales each channel by a sigmoid of its own and its neighbors' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = eca_kernel(channels)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        means = F.adaptive_avg_pool2d(feature, 1).flatten(2).transpose(1, 2)  # (N, 1, C)
        scale: Tensor = self.conv(means).sigmoid().transpose(1, 2).unsqueeze(3)  # (N, C, 1, 1)
        return feature * scale


class SE(nn.Module):
    """Scales each channel by a sigmoid of what two dense layers make of all means."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, feature: Tensor) -> Tensor:
        hidden = self.squeeze(F.adaptive_avg_pool2d(feature, 1)).relu()
        scale: Tensor = self.excite(hidden).sigmoid()
        return feature * scale


class SimAM(nn.Module):
    """Scales each pixel by a sigmoid of how far it stands out of its channel (eq. 5 and 6, lambda 1e-4)."""

    def __init__(self, channels: int) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, feature: Tensor) -> Tensor:
        apart = (feature - feature.mean(dim=(2, 3), keepdim=True)).square()
        others = max(1, feature.shape[2] * feature.shape[3] - 1)
        variance = apart.sum(dim=(2, 3), keepdim=True) / others
        return feature * (apart / (4 * (variance + 1e-4)) + 0.5).sigmoid()


class SepConvAttention(nn.Module):
    """Scales each value by a sigmoid of a depthwise-separable convolution at half the size, enlarged again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask = depthwise_separable(channels, channels, stride=2)

    def forward(self, feature: Tensor) -> Tensor:
        mask = F.interpolate(self.mask(feature), size=feature.shape[2:], mode="bilinear", align_corners=False)
        return feature * mask.sigmoid()


KINDS: dict[Attention, Callable[[int], nn.Module]] = {
    "eca": ECA,
    "se": SE,
    "simam": SimAM,
    "sepconv": SepConvAttention,
    "none": lambda _: nn.Identity(),
}


def make_attention(kind: Attention, channels: int) -> nn.Module:
    return KINDS[kind](channels)
