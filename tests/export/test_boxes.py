"""A detector's files: raw heads or boxes, in every precision, with all that a program must know to use them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fivelevels
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from smalldetector import LABELS, SHAPE, SmallDetector

from kdedge.core.deployment import Export
from kdedge.core.errors import ModelError
from kdedge.core.recipe import Normalize
from kdedge.engine.base import backend
from kdedge.engine.boxes import CHOSEN, Detections, decode, detections_of
from kdedge.engine.boxes_decoding import KEY, Decoding, read_decoding
from kdedge.engine.rows import run_rows
from kdedge.export.boxes import add_nms, remove_nms
from kdedge.export.int8 import Calibrated, to_int8
from kdedge.export.onnx import export_onnx, load, metadata_of, run
from kdedge.export.precision import to_fp16
from kdedge.export.trace import dims

NORMALIZE = Normalize(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
PLAIN_INT8 = {"activations": "int8", "symmetric": True, "quantize_bias": False}
KINDS = ("sigmoid", "softmax", "centerness")


@pytest.fixture(scope="module")
def network() -> SmallDetector:
    return SmallDetector()


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, *SHAPE[1:], 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def images(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    normalized = (pixels / 255 - NORMALIZE.mean) / NORMALIZE.std
    return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2), np.float32)


@pytest.fixture(scope="module")
def write(network: SmallDetector, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`write(boxes="nms")` exports with those keys of a preset, once."""
    written: dict[str, Path] = {}

    def export(**keys: Any) -> Path:
        name = repr(sorted(keys.items()))
        if name not in written:
            written[name] = tmp_path_factory.mktemp("model") / "fp32.onnx"
            export_onnx(network, written[name], SHAPE, Export(**keys), NORMALIZE, LABELS)
        return written[name]

    return export


def found_by(path: Path, images: NDArray[Any], decoding: Decoding) -> list[Detections]:
    with backend("ort").open(path, {"threads": 1}) as session:
        return detections_of(run_rows(session, images), decoding)


def assert_same(found: list[Detections], expected: list[Detections]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.classes.tolist() == theirs.classes.tolist()
        np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=1e-3)
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-5)


def decoding_for(scores: str, **changes: Any) -> dict[str, Any]:
    return fivelevels.FiveLevels(1, scores).decoding() | changes


def heads(decoding: Decoding, seed: int = 0) -> NDArray[np.float32]:
    """Random outputs of three images, some of whose boxes reach beyond the image."""
    values = np.random.default_rng(seed).standard_normal((3, len(decoding.anchors), decoding.width), np.float32)
    if decoding.coder == "distances":
        values[..., :4] = np.abs(values[..., :4])
    return values


def only_boxes(described: dict[str, Any], opset: int = 18) -> onnx.ModelProto:
    """A graph that makes boxes of the heads that it is given."""
    decoding = read_decoding("it", described)
    shape = ["batch", len(decoding.anchors), decoding.width]
    taken, given = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "logits"))
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["logits"], "all")], "it", [taken], [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    add_nms(model, described)
    onnx.checker.check_model(model, full_check=True)
    return model


def boxes_of(described: dict[str, Any], values: NDArray[np.float32], opset: int = 18) -> list[Detections]:
    outputs = dict(zip(CHOSEN, run(only_boxes(described, opset), values), strict=True))
    return detections_of(outputs, read_decoding("it", described))


@pytest.mark.parametrize("changes", [{}, {"candidates": 7, "detections": 5}, {"score_threshold": 0.5, "clip": True}])
@pytest.mark.parametrize("scores", KINDS)
def test_nms_in_the_graph_finds_the_boxes_of_the_runtime(scores: str, changes: dict[str, Any]) -> None:
    described = decoding_for(scores, **changes)
    decoding = read_decoding("it", described)
    expected = decode(heads(decoding), decoding)
    assert all(len(each.boxes) == decoding.detections for each in expected)
    assert_same(boxes_of(described, heads(decoding)), expected)


@pytest.mark.parametrize("opset", [17, 23])
def test_nms_in_the_graph_works_in_every_opset(opset: int) -> None:
    described = decoding_for("sigmoid", candidates=20)
    decoding = read_decoding("it", described)
    assert_same(boxes_of(described, heads(decoding), opset), decode(heads(decoding), decoding))


def test_nms_in_the_graph_divides_deltas_by_their_weights_and_caps_growth() -> None:
    described = decoding_for("softmax", weights=[10.0, 10.0, 5.0, 5.0])
    decoding = read_decoding("it", described)
    values = heads(decoding)
    values[0, :, 2] = 100
    assert_same(boxes_of(described, values), decode(values, decoding))


@pytest.mark.parametrize("scores", KINDS)
def test_of_equal_scores_the_graph_prefers_the_one_that_the_runtime_does(scores: str) -> None:
    described = decoding_for(scores, candidates=30, detections=12)
    decoding = read_decoding("it", described)
    values = heads(decoding)
    values[..., 4:] = np.round(values[..., 4:])  # as int8 leaves them
    assert_same(boxes_of(described, values), decode(values, decoding))


@pytest.mark.parametrize("scores", KINDS)
def test_an_image_without_objects_has_no_boxes_in_the_graph(scores: str) -> None:
    described = decoding_for(scores)
    decoding = read_decoding("it", described)
    values = heads(decoding)
    values[1, :, 4:] = -20
    if scores == "softmax":
        values[1, :, 4] = 20
    found = boxes_of(described, values)
    assert [len(each.boxes) for each in found] == [20, 0, 20]
    assert_same(found, decode(values, decoding))


def test_nms_in_the_graph_gives_rows_of_a_fixed_size() -> None:
    described = decoding_for("sigmoid", detections=6)
    model = only_boxes(described)
    shapes = {value.name: dims(value) for value in model.graph.output}
    assert shapes == {"boxes": ["batch", 6, 4], "scores": ["batch", 6], "classes": ["batch", 6], "count": ["batch"]}
    values = heads(read_decoding("it", described))
    assert [array.dtype.name for array in run(model, values)] == ["float32", "float32", "int32", "int32"]


def test_suppression_is_one_node_that_names_tensorrts_plugin() -> None:
    model = only_boxes(decoding_for("sigmoid"))
    assert "NonMaxSuppression" not in [node.op_type for node in model.graph.node]
    node = next(node for node in model.graph.node if node.domain)
    settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    assert (node.domain, node.op_type, len(node.input), len(node.output)) == ("TRT", "EfficientNMS_TRT", 2, 4)
    assert settings == {
        "score_threshold": pytest.approx(0.05),
        "iou_threshold": 0.5,
        "max_output_boxes": 20,
        "background_class": -1,
        "score_activation": 0,
        "class_agnostic": 0,
        "box_coding": 0,
        "plugin_version": b"1",
        "plugin_namespace": b"",
    }


def test_nms_leaves_the_graph_as_it_came() -> None:
    described = decoding_for("sigmoid")
    model = only_boxes(described)
    assert remove_nms(model)
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert (len(model.functions), len(model.opset_import), len(model.graph.initializer)) == (0, 1, 0)
    assert not remove_nms(model)


def test_export_of_a_detector_gives_its_raw_heads(network, write, images) -> None:
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert [dims(value) for value in load(write()).graph.output] == [["batch", *expected.shape[1:]]]
    np.testing.assert_allclose(run(load(write()), images)[0], expected, atol=1e-4)


@pytest.mark.parametrize("boxes", ["heads", "nms"])
def test_export_says_in_a_detectors_file_what_a_program_must_know(network, write, boxes) -> None:
    model = load(write(boxes=boxes))
    said = metadata_of(model)
    assert metadata_of(model, KEY) == network.decoding()
    assert (said["labels"], said["preprocess"], said["image_shape"]) == (list(LABELS), False, list(SHAPE))
    assert said["letterbox"] == {"place": "top left", "fill": 114}
    assert "of a 128x128 square: a picture scaled until its longer side fills it, top left, the rest 114" in (
        model.doc_string
    )
    assert ("boxes: x1, y1, x2, y2" if boxes == "nms" else "logits: for each anchor") in model.doc_string


@pytest.mark.parametrize("boxes", ["heads", "nms"])
def test_pixels_of_a_detector_are_the_square_as_it_is(network, write, images, pixels, boxes) -> None:
    path, decoding = write(boxes=boxes, preprocess=True), read_decoding("it", network.decoding())
    assert dims(load(path).graph.input[0]) == ["batch", 128, 128, 3]
    assert "Resize" not in [node.op_type for node in load(path).graph.node]
    found = found_by(path, pixels, decoding)
    assert sum(len(each.boxes) for each in found) > 20
    assert_same(found, found_by(write(), images, decoding))


def test_lower_precisions_make_boxes_in_their_graphs_as_well(network, write, images, tmp_path) -> None:
    decoding = read_decoding("it", network.decoding())
    for boxes in ("heads", "nms"):
        to_fp16(write(boxes=boxes), tmp_path / f"{boxes}.fp16.onnx")
        to_int8(write(boxes=boxes), tmp_path / f"{boxes}.int8.onnx", images, Export(quantization=PLAIN_INT8))
    for precision in ("fp16", "int8"):
        files = [tmp_path / f"{boxes}.{precision}.onnx" for boxes in ("heads", "nms")]
        raw, chosen = (found_by(path, images, decoding) for path in files)
        assert [metadata_of(load(path), KEY) for path in files] == [network.decoding()] * 2
        assert [metadata_of(load(path))["precision"] for path in files] == [precision] * 2
        assert [value.name for value in load(files[1]).graph.output] == list(CHOSEN)
        assert sum(len(each.boxes) for each in raw) > 20
        assert_same(chosen, raw)


def test_int8_puts_heads_together_in_float(write, images, tmp_path) -> None:
    """Boxes and scores, whose ranges differ by far: ONNX Runtime quantizes what moves values, not what joins them."""
    to_int8(write(), tmp_path / "int8.onnx", images, Export())
    nodes = load(tmp_path / "int8.onnx").graph.node
    quantized = {node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}
    joined = [node.output[0] for node in nodes if node.op_type == "Concat"]
    assert len(joined) == 3
    assert not quantized.intersection(joined)


def test_int8_of_scores_does_not_depend_on_the_range_of_the_boxes(network, images, tmp_path) -> None:
    wide = copy.deepcopy(network)
    with torch.no_grad():
        wide.boxes.weight.mul_(1000)
    export_onnx(wide, tmp_path / "fp32.onnx", SHAPE, Export(), NORMALIZE, LABELS)
    to_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images, Export())
    exact, rough = (run(load(tmp_path / name), images)[0][..., 4:] for name in ("fp32.onnx", "int8.onnx"))
    assert np.abs(exact - rough).max() < 0.05 * np.abs(exact).max()


def test_layers_are_ranked_by_raw_heads(network, write, images, tmp_path) -> None:
    calibrated = Calibrated(write(boxes="nms"), images, Export(boxes="nms"))
    calibrated.save_float(tmp_path / "exact.onnx")
    calibrated.quantize(tmp_path / "one.onnx", only=["logits"])
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    exact, one = (run(load(tmp_path / name), images)[0] for name in ("exact.onnx", "one.onnx"))
    np.testing.assert_allclose(exact, expected, atol=1e-4)
    assert one.shape == expected.shape
    assert np.abs(one - exact).max() > 1e-3


def test_classifier_has_no_boxes_to_make(net, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"export.boxes: nms: Sequential is no detector\n  --set export.boxes=heads"):
        export_onnx(net, tmp_path / "model.onnx", (3, 16, 16), Export(boxes="nms"), NORMALIZE, tuple("abcdefg"))


def test_export_refuses_a_detector_of_other_classes(network, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"SmallDetector of 3 classes for images of 128x128: .* for 2 labels"):
        export_onnx(network, tmp_path / "model.onnx", SHAPE, Export(), NORMALIZE, LABELS[:2])
