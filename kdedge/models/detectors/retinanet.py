"""RetinaNet: anchors of three sizes and three shapes in each cell of a feature pyramid, and the focal loss.

T.-Y. Lin et al.: "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002.
Called without options it is torchvision's retinanet_resnet50_fpn; with norm: group, box_loss: giou and p6: c5 its
retinanet_resnet50_fpn_v2.  Their checkpoints have 91 classes, the first of which stands for nothing.
"""

import re
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead

from kdedge.models.cost import Shape
from kdedge.models.detector import DETECTORS, Detector, side_of
from kdedge.models.detectors.pyramid import Backbone, Channels, Levels, Norm, Source, norm_layer, pyramid

Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OLD_HEAD = r"^(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)$"
SIZES, SHAPES = 3, (0.5, 1.0, 2.0)
REFERENCE = 800
"""Pixels a side of the images that the published anchors are meant for."""
LEAST_SCALE = 0.4
"""Smaller anchors lie so far apart, for the strides stay, that half of the boxes overlap none by half."""


class RetinaNetDetector(Detector, RetinaNet):  # type: ignore[misc]
    """One logit a class for every anchor, and the anchor's shift and stretch to the box."""

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        def today(found: re.Match[str]) -> str:
            return f"{found[1]}.{int(found[2]) // 2}.0.{found[3]}"  # the activations between had numbers, too

        return {re.sub(OLD_HEAD, today, name): tensor for name, tensor in super().renamed(state).items()}


@DETECTORS.register("retinanet")
def retinanet(
    classes: int,
    image_shape: Shape,
    *,
    backbone: Backbone = "resnet50",
    channels: Channels = 256,
    levels: Levels = "p3-p7",
    p6: Source = "p5",
    norm: Norm = "none",
    box_loss: Literal["l1", "smooth_l1", "giou", "diou", "ciou"] = "l1",
    anchor_scale: Scale | None = None,
) -> Detector:
    """Without `anchor_scale`, anchors keep their share of the image, their published sizes times side / 800, as far
    down as images of 320 pixels; below they stay as they are there."""
    side = side_of("retinanet", image_shape)
    body, indices, points, classifier = pyramid(backbone, channels, levels, p6)
    anchors = anchors_for(indices, max(LEAST_SCALE, side / REFERENCE) if anchor_scale is None else anchor_scale)
    head = RetinaNetHead(channels, anchors.num_anchors_per_location()[0], classes, norm_layer(norm, channels))
    head.regression_head._loss_type = box_loss  # as torchvision's second version sets it
    network = RetinaNetDetector(body, classes, anchor_generator=anchors, head=head)
    network.describe(classes, side, indices, points, classifier)
    return network


def anchors_for(levels: tuple[int, ...], scale: float) -> AnchorGenerator:
    """The published anchors, four strides wide and more, times `scale`."""
    sizes = tuple(tuple(int(2 ** (level + 2) * 2 ** (n / SIZES)) for n in range(SIZES)) for level in levels)
    anchors = AnchorGenerator(sizes, (SHAPES,) * len(sizes))
    anchors.cell_anchors = [scale * cell for cell in anchors.cell_anchors]  # it rounds, which small sizes do not bear
    return anchors
