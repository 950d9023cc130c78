"""Boxes made in the graph: TensorRT's own parser and builder take all of it but suppression, which its plugins do."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import realtrt
from onnx.utils import Extractor
from smalldetector import LABELS, SHAPE, SmallDetector

from kdedge.core.errors import ModelError
from kdedge.core.load import load_preset
from kdedge.core.recipe import Normalize
from kdedge.export.int8 import to_int8
from kdedge.export.onnx import export_onnx, load
from kdedge.export.precision import to_fp16

EXPORT = load_preset("tensorrt_nms")


@pytest.fixture(scope="module", params=["sigmoid", "softmax"])
def files(request, tmp_path_factory) -> Path:
    """A folder with the model in every precision."""
    folder = tmp_path_factory.mktemp(request.param)
    normalize = Normalize(mean=(0.5,) * 3, std=(0.25,) * 3)
    images = np.random.default_rng(0).standard_normal((4, *SHAPE), np.float32)
    export_onnx(SmallDetector(request.param), folder / "fp32.onnx", SHAPE, EXPORT, normalize, LABELS)
    to_fp16(folder / "fp32.onnx", folder / "fp16.onnx")
    to_int8(folder / "fp32.onnx", folder / "int8.onnx", images, EXPORT)
    return folder


def without_suppression(source: Path, out: Path) -> Path:
    """The model up to the boxes and scores that suppression takes."""
    model = load(source)
    taken = next(node for node in model.graph.node if node.op_type == "EfficientNMS_TRT").input
    extracted = Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(["images"], list(taken))
    onnx.save(extracted, out)
    return out


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_boxes_before_suppression_become_an_engine(needs, files, tmp_path, precision):
    source = without_suppression(files / f"{precision}.onnx", tmp_path / "boxes.onnx")
    sidecar = realtrt.build(needs, source, tmp_path / "boxes.engine", opt_batch=2, max_batch=4)
    assert sidecar["precision"][precision] >= 4  # the convolutions, at least


def test_builder_without_suppression_says_what_to_do(needs, files, tmp_path):
    with pytest.raises(ModelError, match="nonmaxsuppression") as caught:
        realtrt.build(needs, files / "fp32.onnx", tmp_path / "student.engine", opt_batch=2, max_batch=4)
    assert caught.value.fix.startswith("kdedge export --set export.boxes=heads ")
