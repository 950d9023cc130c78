"""Every deployment preset: its keys are valid, and a small network goes all the way through it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import realtrt
import torch
from smalldetector import LABELS, SHAPE, SmallDetector
from torch import nn

from kdedge.core.errors import ModelError
from kdedge.core.load import load_preset, shipped
from kdedge.core.recipe import Normalize
from kdedge.engine.base import backend, backend_names
from kdedge.engine.boxes import decode, detections_of
from kdedge.engine.boxes_decoding import read_decoding
from kdedge.engine.rows import run_rows
from kdedge.export.int8 import to_int8
from kdedge.export.onnx import export_onnx, read_metadata
from kdedge.export.precision import to_fp16

FOLDER = Path(__file__).parents[1] / "export"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
CPU = "CPUExecutionProvider"
PRESETS = [path for path in FILES if path.suffix in (".yaml", ".yml")]
WITH_BOXES = [path for path in PRESETS if load_preset(path.stem).boxes == "nms"]


def test_folder_holds_presets_alone_and_all_are_shipped() -> None:
    assert FILES == PRESETS == sorted(shipped("export").values())


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_says_what_it_is_for_and_names_a_backend(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert load_preset(str(path)) == load_preset(path.stem)
    assert load_preset(path.stem).backend in backend_names()


@pytest.mark.parametrize("path", sorted({*PRESETS} - {*WITH_BOXES}), ids=lambda path: path.stem)
def test_preset_builds_every_precision_it_names(
    path: Path, tmp_path: Path, needs: Callable[[object, str], None]
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    export = load_preset(str(path))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    images = pixels if export.preprocess else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / 127.5 - 1
    normalize = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    export_onnx(net, tmp_path / "fp32.onnx", (3, 8, 8), export, normalize, ("a", "b", "c"))
    if "fp16" in export.precisions:
        to_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    if "int8" in export.precisions:
        to_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images, export)
    with torch.no_grad():
        wanted = net.eval()(torch.tensor(pixels).permute(0, 3, 1, 2) / 127.5 - 1).numpy()
    engine, options = backend(export.backend), dict(export.backend_options)
    engine.settings(options)
    if getattr(engine, "provider", CPU) not in onnxruntime.get_available_providers():
        engine, options = backend("ort"), {}  # the file at least is as it should be
    for precision in export.precisions:
        source, built = tmp_path / f"{precision}.onnx", tmp_path / f"{precision}{engine.suffix}"
        assert (read_metadata(source)["opset"], read_metadata(source)["precision"]) == (export.opset, precision)
        if engine.name == "trt":
            assert precision in realtrt.build(needs, source, built, **export.backend_options)["precision"]
            continue
        engine.build(source, built, options)
        with engine.open(built, options) as session:
            outputs = run_rows(session, images)["logits"]
        tolerance = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.1}[precision] * np.abs(wanted).max()
        np.testing.assert_allclose(outputs, wanted, atol=tolerance)


@pytest.mark.parametrize("path", WITH_BOXES, ids=lambda path: path.stem)
def test_preset_for_detectors_gives_boxes(path: Path, tmp_path: Path, needs: Callable[[object, str], None]) -> None:
    network, export, normalize = SmallDetector(), load_preset(path.stem), Normalize(mean=(0,) * 3, std=(1,) * 3)
    images = np.random.default_rng(0).standard_normal((4, *SHAPE), np.float32)
    export_onnx(network, tmp_path / "fp32.onnx", SHAPE, export, normalize, LABELS)
    to_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    to_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images, export)
    if export.backend == "trt":  # the one that needs no GPU has no suppression
        with pytest.raises(ModelError, match=r"(?s)builds no engine.*nonmaxsuppression.*\n  .*export.boxes=heads"):
            realtrt.build(needs, tmp_path / "fp32.onnx", tmp_path / "fp32.engine", **export.backend_options)
        return
    decoding = read_decoding("it", network.decoding())
    with torch.no_grad():
        expected = decode(network(torch.from_numpy(images)).numpy(), decoding)
    for precision in export.precisions:
        with backend(export.backend).open(tmp_path / f"{precision}.onnx", export.backend_options) as session:
            found = detections_of(run_rows(session, images), decoding)
        for mine, theirs in zip(found, expected, strict=True):
            assert len(theirs.boxes) == 50
            np.testing.assert_allclose(
                mine.scores, theirs.scores, atol={"fp32": 1e-5, "fp16": 1e-2}.get(precision, 0.1)
            )


def test_boards_have_presets_that_leave_building_to_them() -> None:
    boards = {path.stem for path in PRESETS if load_preset(path.stem).engines == "device"}
    names = ("orin_nano", "orin_nx", "agx_orin", "xavier_nx", "thor")
    assert boards == {f"jetson_{name}" for name in names}
    assert {load_preset(name).backend for name in boards} == {"trt"}
