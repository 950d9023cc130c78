"""SSDLite: default boxes on six maps of a MobileNet, with depthwise-separable heads of their own.

M. Sandler et al.: "MobileNetV2", CVPR 2018, arXiv:1801.04381, sec. 6.2; A. Howard et al.: "Searching for MobileNetV3",
ICCV 2019, arXiv:1905.02244, sec. 6.3; W. Liu et al.: "SSD", ECCV 2016, arXiv:1512.02325.
Called without options it is torchvision's ssdlite320_mobilenet_v3_large, whose checkpoint has 90 classes here, where
the background is not counted.
"""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection._utils import retrieve_out_channels
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead
from torchvision.ops import box_iou

from kdedge.core.errors import ModelError
from kdedge.models.blocks import Width
from kdedge.models.cost import Shape
from kdedge.models.detector import DETECTORS, Detector, side_of
from kdedge.models.features import FeaturePoint

Share = Annotated[float, Field(gt=0, le=1)]
MODULES = ("features.0", "features.1", "extra.0", "extra.1", "extra.2", "extra.3")
LEVELS = tuple(range(4, 4 + len(MODULES)))
POST = {"score_thresh": 0.001, "nms_thresh": 0.55, "detections_per_img": 300, "topk_candidates": 300}
INITIAL_STD = 0.03


class SSDDetector(Detector, SSD):  # type: ignore[misc]
    """A logit of the background and one a class for every default box, and the box's shift and stretch."""

    scores = "softmax"
    offset = 0.5

    def matched_losses(
        self, found: dict[str, Tensor], wanted: list[dict[str, Tensor]], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        matches = [self.match(image["boxes"], boxes) for image, boxes in zip(wanted, anchors, strict=True)]
        return self.compute_loss(wanted, found, anchors, matches)

    def match(self, objects: Tensor, anchors: Tensor) -> Tensor:
        """(anchors,): the object that each is to find, or -1."""
        if not len(objects):
            return anchors.new_full((len(anchors),), -1).long()
        matched: Tensor = self.proposal_matcher(box_iou(objects, anchors))
        return matched


@DETECTORS.register("ssdlite")
def ssdlite(
    classes: int,
    image_shape: Shape,
    *,
    backbone: Literal["mobilenet_v3_large", "mobilenet_v3_small"] = "mobilenet_v3_large",
    width: Width = 1.0,
    reduced_tail: bool = True,
    min_ratio: Share = 0.2,
    max_ratio: Share = 0.95,
) -> Detector:
    """Default boxes take `min_ratio` of the image's side on the first map and `max_ratio` on the last."""
    if min_ratio >= max_ratio:
        raise ModelError(f"ssdlite: min_ratio {min_ratio}, max_ratio {max_ratio}", "boxes grow from map to map")
    side = side_of("ssdlite", image_shape)
    normalize = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    taken = {"weights": None, "norm_layer": normalize, "width_mult": width, "reduced_tail": reduced_tail}
    classifier = models.get_model(backbone, **taken)
    body = extractor(classifier.features, width, normalize)
    channels = retrieve_out_channels(body, (side, side))
    boxes = DefaultBoxGenerator([[2, 3] for _ in channels], min_ratio=min_ratio, max_ratio=max_ratio)
    head = SSDLiteHead(channels, boxes.num_anchors_per_location(), classes + 1, normalize)
    network = SSDDetector(body, boxes, (side, side), classes + 1, head=head, **POST)
    points = {
        f"p{level}": FeaturePoint(f"backbone.{module}", count, 2**level)
        for level, module, count in zip(LEVELS, MODULES, channels, strict=True)
    }
    network.describe(classes, side, LEVELS, points, classifier)
    return network


def extractor(blocks: nn.Sequential, width: float, normalize: partial[nn.BatchNorm2d]) -> nn.Module:
    """The maps of strides 16 and 32 of a MobileNet, and four more."""
    for module in blocks.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=INITIAL_STD)
    last = max(n for n, block in enumerate(blocks) if getattr(block, "_is_cn", False))
    return SSDLiteFeatureExtractorMobileNet(blocks, last, normalize, width)  # type: ignore[no-any-return]
