"""Where the parts of detection meet that never import each other: networks, data and the runtime on a board."""

import json

import numpy as np
import pytest
import torch

from kdedge.data import boxes as data_boxes
from kdedge.engine.boxes import decode
from kdedge.engine.boxes_decoding import read_decoding
from kdedge.engine.boxes_letterbox import GRAY, fitted, letterbox, unletterbox
from kdedge.models.detector import Detector
from kdedge.models.zoo import build_model, model_names

CLASSES = 4


def detector(name: str, side: int) -> Detector:
    torch.manual_seed(0)
    backbone = "mobilenet_v3_small" if name == "ssdlite" else "resnet18"
    network = build_model(name, {"backbone": backbone}, CLASSES, (3, side, side), "detect").eval()
    assert isinstance(network, Detector)
    return network


def torchvisions(network: Detector, outputs: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """The boxes that the network's own torchvision class makes of its outputs."""
    parts = dict(zip(network.columns, outputs.split(list(network.columns.values()), dim=2), strict=True))
    anchors, side = network.anchors(), network.image_size
    shapes = [(side, side)] * len(outputs)
    if network.scores == "softmax":
        return network.postprocess_detections(parts, [anchors] * len(outputs), shapes)
    counts = [rows * rows * cells for rows, cells in zip(network.sides, network.per_cell, strict=True)]
    split = {name: list(part.split(counts, dim=1)) for name, part in parts.items()}
    return network.postprocess_detections(split, [list(anchors.split(counts))] * len(outputs), shapes)


@pytest.mark.parametrize("side", [64, 100, 160])
@pytest.mark.parametrize("name", model_names("detect"))
@pytest.mark.oracle
def test_runtime_makes_the_boxes_of_outputs_that_the_networks_own_class_makes(name, side):
    network = detector(name, side)
    decoding = read_decoding(name, json.dumps(network.decoding()))
    np.testing.assert_allclose(decoding.anchors, network.anchors(), atol=1e-4)
    outputs = torch.randn(2, len(decoding.anchors), decoding.width)
    outputs[..., 4:] *= 3
    outputs[..., 4:] -= 4 * (network.scores == "sigmoid")
    first = int(network.scores == "softmax")  # the background
    for found, theirs in zip(decode(outputs.numpy(), decoding), torchvisions(network, outputs), strict=True):
        assert len(theirs["boxes"])
        np.testing.assert_allclose(found.boxes, theirs["boxes"], atol=1e-4)
        np.testing.assert_allclose(found.scores, theirs["scores"], atol=1e-6)
        assert (found.classes + first).tolist() == theirs["labels"].tolist()


@pytest.mark.parametrize("shape", [(48, 64), (97, 33), (20, 20), (1, 70)])
def test_training_and_runtime_put_a_picture_into_its_square_alike(shape):
    height, width = shape
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    window = data_boxes.Window(0, 0, width, height)
    trained_on = data_boxes.show_image(torch.from_numpy(picture).permute(2, 0, 1), window, 40)
    assert (GRAY, fitted(height, width, 40)) == (data_boxes.GRAY, data_boxes.fitted(height, width, 40))
    differences = np.abs(trained_on.permute(1, 2, 0).numpy().astype(int) - letterbox(picture, 40))
    assert differences.max() <= 1


def test_boxes_come_back_from_the_square_that_training_put_them_in():
    boxes = torch.tensor([[2, 3.0, 4, 33, 24], [0, 0, 0, 64, 48]])
    shown = data_boxes.show_boxes(boxes, data_boxes.Window(0, 0, 64, 48), 40)
    np.testing.assert_allclose(unletterbox(shown[:, 1:].numpy(), 48, 64, 40), boxes[:, 1:], atol=1e-4)
