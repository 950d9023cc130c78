"""torchvision's detectors, small and with random heads, and how kdedge's dict describes each."""

from typing import Any

import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS, RetinaNet, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor as resnet_fpn
from torchvision.models.detection.image_list import ImageList

SIZE, CLASSES = 128, 5
KINDS = ("retinanet", "fcos", "ssdlite")


def detector(kind: str, classes: int = CLASSES, **options: Any) -> nn.Module:
    """torchvision's own, in eval mode; SSDLite's has one class more, the background."""
    if kind == "ssdlite":
        made = ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=classes + 1, **{"score_thresh": 0.2, **options}
        )
        return made.eval()
    network = FCOS if kind == "fcos" else RetinaNet
    cells = 1 if kind == "fcos" else 3
    sizes = tuple(tuple(8 * 2**level * (1 + n / 3) for n in range(cells)) for level in range(3))
    ratios = ((1.0,) if kind == "fcos" else (0.5, 1.0, 2.0),) * 3
    backbone = resnet_fpn(resnet18(weights=None), 0, returned_layers=[2, 3, 4])
    backbone.fpn.extra_blocks = None
    return network(backbone, classes, anchor_generator=AnchorGenerator(sizes, ratios), **options).eval()


def anchors_of(model: nn.Module, size: int = SIZE) -> tuple[torch.Tensor, list[list[int]], list[int]]:
    """torchvision's anchors, and each level's grid and number of anchors."""
    images = torch.zeros(1, 3, size, size)
    with torch.no_grad():
        found = model.backbone(images)
    maps = list(found.values())
    grids = [list(each.shape[-2:]) for each in maps]
    anchors = model.anchor_generator(ImageList(images, [(size, size)]), maps)[0]
    a_cell = model.anchor_generator.num_anchors_per_location()
    return anchors, grids, [h * w * n for (h, w), n in zip(grids, a_cell, strict=True)]


def decoding_of(kind: str, model: nn.Module, classes: int = CLASSES, size: int = SIZE) -> dict[str, Any]:
    """What torchvision's modules say, in the form that travels with a model."""
    _, grids, _ = anchors_of(model, size)
    ssd = kind == "ssdlite"
    levels = []
    for number, (rows, columns) in enumerate(grids):
        stride = [size / rows, size / columns] if ssd else [size // rows, size // columns]
        if ssd:
            pairs = (model.anchor_generator._wh_pairs[number].clamp(0, 1) * size / 2).tolist()
            cells = [[-w, -h, w, h] for w, h in pairs]
        else:
            cells = model.anchor_generator.cell_anchors[number].tolist()
        offset = [0.5, 0.5] if ssd else [0, 0]
        levels.append({"grid": [rows, columns], "stride": stride, "offset": offset, "cells": cells})
    coder = model.box_coder
    return {
        "classes": classes,
        "image_size": size,
        "coder": "distances" if kind == "fcos" else "deltas",
        "weights": list(getattr(coder, "weights", (1.0, 1.0, 1.0, 1.0))),
        "normalize_by_size": getattr(coder, "normalize_by_size", False),
        "scores": {"fcos": "centerness", "ssdlite": "softmax"}.get(kind, "sigmoid"),
        "levels": levels,
        "clip": False,
        "score_threshold": model.score_thresh,
        "nms_threshold": model.nms_thresh,
        "candidates": model.topk_candidates,
        "detections": model.detections_per_img,
    }


def postprocess(kind: str, model: nn.Module, outputs: torch.Tensor, size: int = SIZE) -> list[dict[str, torch.Tensor]]:
    """torchvision's own way from (N, A, D) to boxes; labels are as it counts them."""
    anchors, _, counts = anchors_of(model, size)
    shapes = [(size, size)] * len(outputs)
    heads = {"bbox_regression": outputs[..., :4], "cls_logits": outputs[..., 4:]}
    if kind == "ssdlite":
        return model.postprocess_detections(heads, [anchors] * len(outputs), shapes)
    if kind == "fcos":
        heads |= {"cls_logits": outputs[..., 4:-1], "bbox_ctrness": outputs[..., -1:]}
    split = {name: list(value.split(counts, dim=1)) for name, value in heads.items()}
    return model.postprocess_detections(split, [list(anchors.split(counts))] * len(outputs), shapes)
