"""The residual network of the public checkpoints of karanchahal/distiller, for recipes that name one as a teacher.

A stem of 64 channels, stages of 16, 32 and 64, no ReLU between the blocks of a stage but one after it, and a linear
layer on the 2x2 places that remain of the map.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from kdedge.models.features import FeaturePoint


class Block(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, feature: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(feature)))
        return self.bn2(self.conv2(out)) + self.shortcut(feature)


class ResNetSmall(nn.Module):
    def __init__(self, depth: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(64, 16, 1, (depth - 2) // 6)
        self.layer2 = stage(16, 32, 2, (depth - 2) // 6)
        self.layer3 = stage(32, 64, 2, (depth - 2) // 6)
        self.linear = nn.Linear(256, classes)
        stages = ((16, 1), (32, 2), (64, 4))
        self.feature_points = {
            f"stage{n}": FeaturePoint(f"layer{n}", width, stride) for n, (width, stride) in enumerate(stages, 1)
        }

    def forward(self, images: Tensor) -> Tensor:
        feature = F.relu(self.bn1(self.conv1(images)))
        feature = self.layer3(self.layer2(self.layer1(feature)))
        return self.linear(F.avg_pool2d(feature, 4).flatten(1))


def stage(inputs: int, channels: int, stride: int, blocks: int) -> nn.Sequential:
    rest = [Block(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(inputs, channels, stride), *rest, nn.ReLU())


def resnet_small(classes: int, image_shape: tuple[int, int, int], depth: int = 32) -> nn.Module:
    """For images of 32x32; the depth is 6 n + 2."""
    return ResNetSmall(depth, classes, image_shape[0])
