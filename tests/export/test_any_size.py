"""Detectors whose files take squares of any side: the network's own answers, and anchors where they would be."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from kdedge.core.deployment import Export
from kdedge.core.errors import ModelError
from kdedge.core.recipe import Normalize
from kdedge.engine.boxes import decode
from kdedge.engine.boxes_decoding import KEY, read_decoding
from kdedge.engine.boxes_letterbox import letterbox
from kdedge.export.onnx import export_onnx, load, metadata_of
from kdedge.export.precision import to_fp16
from kdedge.export.trace import dims
from kdedge.models.zoo import build_model
from kdedge.pipeline.deployed import of_file
from kdedge.pipeline.detector import open_detector

LABELS = ("cat", "dog")
NORMALIZE = Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
KINDS: dict[str, dict[str, Any]] = {
    "retinanet": {"backbone": "mobilenet_v3_small", "channels": 16, "anchor_scale": 0.5},
    "fcos": {"backbone": "mobilenet_v3_small", "channels": 64},
    "ssdlite": {"backbone": "mobilenet_v3_small"},
}


def detector(kind: str, side: int) -> Any:
    torch.manual_seed(0)
    network = build_model(kind, KINDS[kind], len(LABELS), (3, side, side), "detect").eval()
    for parameter in network.parameters():  # SSDLite's are so small that all answers are alike
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    return network


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp(request.param) / "any.onnx"
    export_onnx(detector(request.param, 96), path, (3, 96, 96), Export(dynamic_size=True), NORMALIZE, LABELS)
    return request.param, path


def test_file_of_any_size_answers_as_the_network_does_at_every_size(exported: tuple[str, Path]) -> None:
    kind, path = exported
    session = onnxruntime.InferenceSession(path)
    for side in (96, 64, 160, 224):
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
        with torch.no_grad():
            expected = detector(kind, side)(images).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_anchors_at_another_size_are_those_of_a_detector_for_that_size(exported: tuple[str, Path]) -> None:
    kind, path = exported
    noted = metadata_of(load(path), KEY)
    for side in (64, 160, 224):
        found = read_decoding("it", noted, side)
        assert found.image_size == side
        np.testing.assert_allclose(found.anchors, detector(kind, side).anchors(), atol=1e-3)
    assert read_decoding("it", noted).image_size == 96


def test_file_says_what_is_free(exported: tuple[str, Path]) -> None:
    graph = load(exported[1]).graph
    assert dims(graph.input[0]) == ["batch", 3, "side", "side"]
    assert dims(graph.output[0])[:2] == ["batch", "anchors"]


def test_fp16_of_any_size_stays_so(exported: tuple[str, Path], tmp_path: Path) -> None:
    kind, path = exported
    to_fp16(path, tmp_path / "fp16.onnx")
    images = np.random.default_rng(0).standard_normal((1, 3, 160, 160), dtype=np.float32)
    answers = [
        onnxruntime.InferenceSession(each).run(None, {"images": images})[0] for each in (path, tmp_path / "fp16.onnx")
    ]
    np.testing.assert_allclose(*answers, atol=0.02 * np.abs(answers[0]).max())
    assert metadata_of(load(tmp_path / "fp16.onnx"), KEY)["steps"] == metadata_of(load(path), KEY)["steps"], kind


def test_pictures_are_looked_at_in_another_size(exported: tuple[str, Path]) -> None:
    kind, path = exported
    picture = np.random.default_rng(1).integers(0, 256, (100, 160, 3), np.uint8)
    square = torch.from_numpy(letterbox(picture, 160)).permute(2, 0, 1)[None]
    network = detector(kind, 160)
    with torch.no_grad():
        outputs = network((square / 255 - 0.5) / 0.25)
    (expected,) = decode(outputs.numpy(), read_decoding(kind, network.decoding() | {"score_threshold": 0.4}))
    with open_detector(of_file(path), 0.4, 160) as eyes:
        found = eyes.detect(picture)
    best = slice(10)  # of equal scores any may be next
    np.testing.assert_allclose(found.scores[best], expected.scores[best], atol=1e-3)
    assert len(found.scores) == pytest.approx(len(expected.scores), abs=3)


@pytest.mark.parametrize(("side", "told"), [(100, "--size 96"), (16, "--size 32")])
def test_size_that_a_detector_cannot_halve_is_refused(exported: tuple[str, Path], side: int, told: str) -> None:
    with pytest.raises(ModelError, match=f"multiple of 32(.|\n)*{told}"):
        read_decoding("it", metadata_of(load(exported[1]), KEY), side)


def test_other_size_of_a_file_for_one_is_refused() -> None:
    with pytest.raises(ModelError, match=r"squares of 96x96(.|\n)*export\.dynamic_size"):
        read_decoding("it", detector("fcos", 96).decoding(), 128)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"boxes": "nms"}, "dynamic_size and boxes: nms"),
        ({"preprocess": True}, "dynamic_size and preprocess"),
        ({"backend": "trt"}, "trt builds for one size"),
    ],
)
def test_dynamic_size_is_refused_where_there_is_one_size(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Export(dynamic_size=True, **more)
