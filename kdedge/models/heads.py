"""Classifiers that branch off a network's stages, for self-distillation and early exits.

L. Zhang et al.: "Be Your Own Teacher", ICCV 2019, arXiv:1905.08094 (exits at the stages).
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.attention import Attention, make_attention
from kdedge.models.blocks import conv_norm_relu, depthwise_separable, init_weights


def descent(in_channels: int, out_channels: int, downsamples: int) -> list[nn.Sequential]:
    """Separable convolutions that halve the map and double the channels; at the size already, what changes channels."""
    if downsamples == 0 and in_channels == out_channels:
        return []
    if downsamples == 0:
        return [conv_norm_relu(nn.Conv2d(in_channels, out_channels, 1, bias=False), out_channels)]
    between = [min(in_channels << n, out_channels) for n in range(1, downsamples)]
    widths = [in_channels, *between, out_channels]
    return [depthwise_separable(inputs, outputs, stride=2) for inputs, outputs in pairwise(widths)]


class ExitHead(nn.Module):
    """A stage's own classifier: attention, depthwise-separable convolutions down to the last stage's size, pooling.

    Args:
        out_channels: of the network's last stage, so that embeddings can be compared with its own.
        downsamples: times the map is halved on the way there.
    """

    def __init__(
        self, in_channels: int, out_channels: int, downsamples: int, classes: int, attention: Attention = "eca"
    ) -> None:
        super().__init__()
        self.attention = make_attention(attention, in_channels)
        self.steps = nn.Sequential(*descent(in_channels, out_channels, downsamples))
        self.linear = nn.Linear(out_channels, classes)
        init_weights(self)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """(N, in_channels, H, W) -> embedding (N, out_channels), logits (N, classes)."""
        embedding = F.adaptive_avg_pool2d(self.steps(self.attention(feature)), 1).flatten(1)
        return embedding, self.linear(embedding)
