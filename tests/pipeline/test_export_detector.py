"""`kdedge export` of a detector, for ONNX Runtime and for TensorRT, and its boxes on real pictures."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boxrun
import numpy as np
import pytest
import realtrt
import torch
from detectors_alive import enliven
from forked import Forkserver
from typer.testing import CliRunner

from kdedge.cli import app
from kdedge.core.deployment import Export, Tolerances
from kdedge.core.recipe import Data
from kdedge.data.build import build_data
from kdedge.engine.boxes_decoding import KEY
from kdedge.engine.machine import gpu
from kdedge.export.arrays import read_arrays
from kdedge.export.onnx import OUTPUT, export_onnx, load, metadata_of
from kdedge.export.parity import Predictions, predict_torch
from kdedge.export.sensitivity import ask
from kdedge.models.zoo import build_model
from kdedge.pipeline.arrays import write_validation
from kdedge.pipeline.referees import referee_of

PRECISIONS = ("fp32", "fp16", "int8")


def exported(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "export.json").read_text())
    return found


def test_detector_is_exported_and_compared_by_its_boxes(tmp_path: Path) -> None:
    run = boxrun.write_run(tmp_path, twin=True)
    result = CliRunner().invoke(app, ["export", str(run)])
    assert result.exit_code == 0, (result.output, result.exception)
    export = exported(run)
    hops = {hop["name"]: hop for hop in export["hops"]}
    assert list(hops) == ["torch", *(f"{kind}-{name}" for kind in ("onnx", "engine") for name in PRECISIONS)]
    for name in ("onnx-fp32", "engine-fp32"):
        assert hops[name]["agreement"] == 1
        assert hops[name]["boxes"]["boxes"] > 0
        assert hops[name]["boxes"]["least_iou"] > 0.99
        assert hops[name]["boxes"]["score_error"] < 1e-3
    for hop in hops.values():
        assert (hop["quality"]["objects"], hop["problems"], hop["correctness"]) == (2, [], None)
    assert (export["exits"], export["fragility"], export["input_shape"]) == ([], None, [3, 64, 64])
    assert export["sensitivity"]["split"] == "validation"
    lost = 100 * (hops["onnx-fp32"]["quality"]["mean_ap"] - hops["onnx-int8"]["quality"]["mean_ap"])
    assert hops["onnx-int8"]["notes"][-1:] == [
        f"int8 costs the distilled student {lost:.2f} points and the undistilled one {lost:.2f}; "
        "whether by chance, no test says of mAP"
    ]
    assert metadata_of(load(run / "export/student.int8.onnx"), KEY)["image_size"] == 64
    with np.load(run / "predictions/engine-int8.npz") as kept:
        assert kept["outputs"].shape[::2] == (1, 6)
    assert "mAP" in result.output


@pytest.mark.skipif(bool(gpu()), reason="engines run here: CUDA_VISIBLE_DEVICES= hides the GPU")
def test_detectors_engines_are_built_without_a_gpu(
    forkserver: Forkserver, tmp_path: Path, needs: Callable[[object, str], None]
) -> None:
    needs(realtrt.FOLDER, realtrt.HOW)
    run = boxrun.write_run(tmp_path)
    code, process = forkserver.run(["export", "--trt", str(run)], run.parent, setup=realtrt.IMPORTABLE)
    assert code == 0, process.stderr
    export = exported(run)
    assert set(export["engines"]) == set(PRECISIONS)
    for precision, engine in export["engines"].items():
        assert json.loads((run / f"{engine['path']}.json").read_text())["precision"].get(precision)
    assert [hop["name"] for hop in export["hops"]] == ["torch", "onnx-fp32", "onnx-fp16", "onnx-int8"]


def test_onnx_runtime_and_torch_find_the_same_boxes_on_real_pictures(
    tmp_path: Path, needs: Callable[[object, str], None]
) -> None:
    root = Path(os.environ.get("KDEDGE_DATA", "")) / "BCCD"
    needs((root / "Annotations").is_dir(), "unpack BCCD_Dataset's folder BCCD into the folder that KDEDGE_DATA names")
    dataset = build_data(Data(name="voc", root=str(root), image_size=160), 0)
    torch.manual_seed(0)
    options = {"backbone": "resnet18", "channels": 32, "levels": "p3-p5"}
    network = build_model("retinanet", options, len(dataset.labels), dataset.image_shape, "detect").eval()
    enliven(network, dataset.image_shape)
    write_validation(dataset, False, tmp_path / "arrays.npz")
    arrays = read_arrays(tmp_path / "arrays.npz").first(50)
    fp32 = tmp_path / "fp32.onnx"
    export_onnx(network, fp32, dataset.image_shape, Export(), dataset.normalize, dataset.labels)
    referee = referee_of("detect", fp32, dataset.labels)
    torchs = predict_torch(network, arrays.images, [OUTPUT], referee.batch, referee.keep)[OUTPUT]
    pair = Predictions(arrays.ids, ask(fp32, arrays, referee)), Predictions(arrays.ids, torchs)
    hop = referee.compare("onnx-fp32", *pair, arrays, Tolerances().fp32, "torch")
    assert len(arrays.ids) == 50
    assert hop.boxes is not None
    assert hop.boxes.boxes > 1000
    assert hop.problems == []
    assert hop.boxes.score_error is not None
    assert hop.boxes.score_error < 1e-3
    assert hop.quality.accuracy == pytest.approx(referee.quality(torchs, arrays).accuracy, abs=1e-4)
