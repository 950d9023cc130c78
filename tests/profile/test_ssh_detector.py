"""`kdedge profile --target ssh://...` of a detector's run, with a real server on this machine."""

import json
from pathlib import Path

import boxrun
import numpy as np
import pytest
from typer.testing import CliRunner

from kdedge.cli import app


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    run = boxrun.write_run(tmp_path)
    preset = tmp_path / "device.yaml"
    preset.write_text("precisions: [fp32, int8]\nengines: device\nbackend_options: {threads: 1}\n")
    result = CliRunner().invoke(app, ["export", str(run), "--preset", str(preset)])
    assert result.exit_code == 0, (result.output, result.exception)
    return run


def test_detectors_engines_find_the_same_boxes_over_there(device, exported: Path) -> None:
    quick = ("--processes", "1", "--seconds", "0.02", "--threads", "1")
    result = CliRunner().invoke(app, ["profile", str(exported), "--target", device.url(), *quick])
    assert result.exit_code == 0, (result.output, result.exception)
    [folder] = exported.glob("devices/*")
    report = json.loads((folder / "device.json").read_text())
    hops = {hop["name"]: hop for hop in report["hops"]}
    assert list(hops) == ["engine-fp32", "engine-int8"]
    for name, hop in hops.items():
        assert (hop["agreement"], hop["problems"], hop["quality"]["objects"]) == (1, [], 2)
        with (
            np.load(folder / f"predictions/{name}.npz") as there,
            np.load(exported / f"predictions/onnx-{name.removeprefix('engine-')}.npz") as here,
        ):
            assert there["outputs"].shape == here["outputs"].shape
    assert hops["engine-fp32"]["boxes"]["least_iou"] > 0.99
    assert report["profiles"] == ["fp32", "int8"]
    assert "mAP" in result.output
