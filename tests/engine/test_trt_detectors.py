"""A detector's raw heads: TensorRT's own builder takes them in every precision, ONNX Runtime gives torch's boxes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import realtrt
import torch

from kdedge.core.load import load_preset
from kdedge.engine.boxes import decode
from kdedge.engine.boxes_decoding import KEY, read_decoding
from kdedge.export.int8 import to_int8
from kdedge.export.onnx import at_opset, load, metadata_of, run, save, simplify, write_metadata
from kdedge.export.precision import to_fp16
from kdedge.export.trace import trace
from kdedge.models.zoo import build_model

SHAPE = (3, 128, 128)
EXPORT = load_preset("tensorrt")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    options = {"backbone": "resnet18", "channels": 64, "levels": "p3-p5"}
    made = build_model("retinanet", options, 3, SHAPE, "detect").eval()
    last = made.head.classification_head.cls_logits
    torch.nn.init.normal_(last.weight, std=3)  # so that it finds something, untrained as it is, and no two alike
    torch.nn.init.zeros_(last.bias)
    return made


@pytest.fixture(scope="module")
def fp32(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "fp32.onnx"
    graph = at_opset(simplify(trace(network, SHAPE, EXPORT, ("outputs",)), SHAPE), EXPORT.opset)
    write_metadata(graph, network.decoding(), KEY)
    save(graph, path)
    return path


def converted(source: Path, precision: str, folder: Path) -> Path:
    path = folder / f"{precision}.onnx"
    if precision == "int8":
        to_int8(source, path, np.random.default_rng(0).standard_normal((2, *SHAPE), np.float32), EXPORT)
    else:
        to_fp16(source, path)
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_detector_becomes_an_engine(needs, network, fp32, tmp_path, precision):
    needs(realtrt.FOLDER, realtrt.HOW)
    source = fp32 if precision == "fp32" else converted(fp32, precision, tmp_path)
    assert metadata_of(load(source), KEY) == network.decoding()
    sidecar = realtrt.build(needs, source, tmp_path / "student.engine", opt_batch=2, max_batch=4)
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(source).graph.node)
    left = 1 if precision == "int8" else 0  # of the pyramid, whose sum goes two ways, the builder computes one in fp32
    assert sidecar["precision"][precision] >= convolutions - left


def test_onnx_runtime_gives_the_boxes_of_torch(network, fp32):
    images = torch.randn(3, *SHAPE)
    decoding = read_decoding("m", network.decoding())
    with torch.no_grad():
        expected = decode(network(images).numpy(), decoding)
    for found, torchs in zip(decode(run(load(fp32), images.numpy())[0], decoding), expected, strict=True):
        assert len(torchs.boxes) > 10
        np.testing.assert_allclose(found.boxes, torchs.boxes, atol=1e-2)
        np.testing.assert_allclose(found.scores, torchs.scores, atol=1e-3)
        assert found.classes.tolist() == torchs.classes.tolist()
