"""Real pictures through a real detector: torch, ONNX Runtime with raw heads, and with boxes made in its graph."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from kdedge.core.deployment import Export
from kdedge.core.recipe import Normalize
from kdedge.engine.base import backend
from kdedge.engine.boxes import Detections, decode, detections_of
from kdedge.engine.boxes_decoding import KEY, read_decoding
from kdedge.engine.boxes_letterbox import letterbox
from kdedge.engine.rows import run_rows
from kdedge.export.boxes import add_nms
from kdedge.export.onnx import export_onnx, load, metadata_of, save
from kdedge.models.zoo import build_model

SIDE = 96
NORMALIZE = Normalize(mean=(0.66, 0.64, 0.68), std=(0.19, 0.2, 0.13))
LABELS = ("Platelets", "RBC", "WBC")


@pytest.fixture(scope="module")
def pixels(needs):
    folder = Path(os.environ.get("KDEDGE_DATA", "")) / "BCCD/JPEGImages"
    needs(folder.is_dir(), "unpack BCCD_Dataset's folder BCCD into the folder that KDEDGE_DATA names")
    return np.stack([letterbox(np.asarray(Image.open(path)), SIDE) for path in sorted(folder.glob("*.jpg"))[:50]])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    options = {"backbone": "resnet18", "channels": 32, "levels": "p3-p5", "norm": "none"}
    made = build_model("retinanet", options, len(LABELS), (3, SIDE, SIDE), "detect").eval()
    last = made.head.classification_head.cls_logits
    torch.nn.init.normal_(last.weight, std=20)  # so that it finds something, untrained as it is, and no two alike
    torch.nn.init.zeros_(last.bias)
    return made


def answers(path, pixels, decoding):
    with backend("ort").open(path, {"threads": 1}) as session:
        return detections_of(run_rows(session, pixels), decoding)


def alike(found: list[Detections], expected: list[Detections]) -> float:
    """Share of boxes that the other side has as well; where two scores are almost equal either comes first."""
    shared = total = 0
    for mine, theirs in zip(found, expected, strict=True):
        pairs = box_iou(torch.tensor(mine.boxes), torch.tensor(theirs.boxes)).numpy() > 0.99
        pairs &= np.abs(mine.scores[:, None] - theirs.scores) < 1e-3
        pairs &= mine.classes[:, None] == theirs.classes
        shared += pairs.any(axis=0).sum() + pairs.any(axis=1).sum()
        total += sum(pairs.shape)
    return shared / total


def test_torch_and_both_kinds_of_file_find_the_same_boxes_on_real_pictures(pixels, network, tmp_path):
    heads, chosen = tmp_path / "heads.onnx", tmp_path / "nms.onnx"
    export_onnx(network, heads, (3, SIDE, SIDE), Export(preprocess=True), NORMALIZE, LABELS)
    model = load(heads)
    add_nms(model, metadata_of(model, KEY))
    save(model, chosen)
    normalized = (pixels / 255 - NORMALIZE.mean) / NORMALIZE.std
    decoding = read_decoding("it", network.decoding())
    with torch.no_grad():
        expected = decode(network(torch.tensor(normalized.transpose(0, 3, 1, 2)).float()).numpy(), decoding)
    assert (len(expected), min(len(each.boxes) for each in expected) > 5) == (50, True)
    from_heads, from_graph = (answers(path, pixels, decoding) for path in (heads, chosen))
    assert min(alike(from_heads, expected), alike(from_graph, expected), alike(from_graph, from_heads)) > 0.999
