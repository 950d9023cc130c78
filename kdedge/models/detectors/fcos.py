"""FCOS: no anchors, but the distances from each cell to the sides of the object that it lies in.

Z. Tian et al.: "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, arXiv:1904.01355.
Called without options it is torchvision's fcos_resnet50_fpn, whose checkpoint has 91 classes, the first of which
stands for nothing.
"""

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSClassificationHead, FCOSHead, FCOSRegressionHead

from kdedge.models.cost import Shape
from kdedge.models.detector import DETECTORS, Detector, side_of
from kdedge.models.detectors.pyramid import Backbone, Channels, Levels, Norm, Source, norm_layer, pyramid


class FCOSDetector(Detector, FCOS):  # type: ignore[misc]
    """One logit a class for every cell, four distances in cell sizes, and how central the cell is."""

    coder = "distances"
    scores = "centerness"

    def matched_losses(
        self, found: dict[str, Tensor], wanted: list[dict[str, Tensor]], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        return self.compute_loss(wanted, found, anchors, [side * side for side in self.sides])


@DETECTORS.register("fcos")
def fcos(
    classes: int,
    image_shape: Shape,
    *,
    backbone: Backbone = "resnet50",
    channels: Channels = 256,
    levels: Levels = "p3-p7",
    p6: Source = "p5",
    norm: Norm = "group",
) -> Detector:
    """A level takes the objects that reach 4 to 8 strides from a cell; the first and the last the rest."""
    side = side_of("fcos", image_shape)
    body, indices, points, classifier = pyramid(backbone, channels, levels, p6)
    normalize = norm_layer(norm, channels) or without_norm
    head = FCOSHead(channels, 1, classes, num_convs=0)
    head.classification_head = FCOSClassificationHead(channels, 1, classes, norm_layer=normalize)
    head.regression_head = FCOSRegressionHead(channels, 1, norm_layer=normalize)
    cells = AnchorGenerator(tuple((2**level,) for level in indices), ((1.0,),) * len(indices))
    network = FCOSDetector(body, classes, anchor_generator=cells, head=head)
    network.describe(classes, side, indices, points, classifier)
    return network


def without_norm(_channels: int) -> nn.Module:
    return nn.Identity()
