"""A run on a board that has trtexec and no Python package of TensorRT's: real SSH, and a program like trtexec."""

import json
import os
import sys
from pathlib import Path

import faketrtexec
import numpy as np
import pytest
from forked import Forkserver
from mini import Finished
from typer.testing import CliRunner

from kdedge.cli import app
from kdedge.profile.trtexec_backend import lacking

PRESET = """\
# For a board, without what its program cannot compute.
opset: 17
precisions: [fp32]
backend: trt
backend_options: {max_batch: 4, workspace_mib: 64}
engines: device
"""
OLDEST = os.environ.get("KDEDGE_PYTHON38", sys.executable)
QUICK = ("--processes", "2", "--seconds", "0.05")
WITHOUT = "import sys; sys.modules['tensorrt'] = None"

pytestmark = pytest.mark.skipif(not lacking(), reason="pip uninstall pycuda: trtexec stands in only without it")


@pytest.fixture
def exported(forkserver: Forkserver, copied: Finished) -> Finished:
    """A run whose engines are left to the board, exported where there is no TensorRT."""
    (copied.folder / "board.yaml").write_text(PRESET)
    code, process = forkserver.run(["export", "--preset", "board.yaml"], copied.folder, setup=WITHOUT)
    assert code == 0, process.stderr
    return copied


@pytest.fixture
def board(device, exported: Finished, tmp_path: Path) -> str:
    """The URL of a device with a trtexec that answers the first 128 test images as the ONNX file does."""
    with np.load(exported.run / "arrays/eval.npz") as arrays:
        images = arrays["images"]
    with np.load(exported.run / "predictions/onnx-fp32.npz") as answers:
        known = {image.tobytes(): row.tolist() for image, row in zip(images, answers["outputs"], strict=True)}
    programs = tmp_path / "programs"
    programs.mkdir()
    faketrtexec.install(programs, output="logits", answers=known)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexport PATH={programs}\nexec {OLDEST} "$@"\n')
    python.chmod(0o755)
    return str(device.url(str(python)))


def kdedge(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_export_leaves_engines_to_the_board(exported: Finished) -> None:
    export = exported.json("export.json")
    assert (export["backend"], export["engines"]) == ("trt", {})
    assert export["backend_options"] == {"max_batch": 4, "workspace_mib": 64}
    assert [hop["name"] for hop in export["hops"]] == ["torch", "onnx-fp32"]
    result = CliRunner().invoke(app, ["profile", str(exported.run)])
    assert "its export leaves them to the device that will run them" in str(result.exception)


def test_run_is_built_compared_measured_and_gated_by_trtexec(board: str, exported: Finished, tmp_path: Path) -> None:
    shown = kdedge("profile", exported.run, "--target", board, *QUICK)
    [folder] = exported.run.glob("devices/*")
    report = json.loads((folder / "device.json").read_text())
    assert report["device"]["match"]["trtexec"] == "10.3.0"
    [hop] = report["hops"]
    assert (hop["name"], hop["agreement"], hop["problems"]) == ("engine-fp32", 1.0, [])
    assert hop["max_error"] < 1e-5
    with np.load(exported.run / "arrays/eval.npz") as arrays:
        count = len(arrays["ids"])
    note = f"engines were compared on 128 of {count} test images, as trtexec starts anew for each batch"
    assert hop["notes"] == [note]
    assert note in " ".join(shown.split())
    with np.load(folder / "predictions/engine-fp32.npz") as found:
        assert len(found["ids"]) == 128
    profile = json.loads((folder / "profile/fp32.json").read_text())
    assert profile["latency"]["median"] == 6.0
    assert profile["latency"]["processes"] == 2
    assert profile["provider"] == "TensorRT by trtexec 10.3.0"
    assert profile["notes"].count("run by trtexec 10.3.0, as this Python has no tensorrt and pycuda") == 1
    assert "run by trtexec 10.3.0" in shown
    sidecar = json.loads((folder / "engine/student.fp32.engine.json").read_text())
    assert sidecar["options"]["workspace_mib"] == 64

    baseline = tmp_path / "baseline.json"
    kdedge("gate", exported.run, "--device", folder.name, "--baseline", baseline, "--update", "--reason", "first")
    metrics = json.loads(baseline.read_text())["metrics"]
    assert metrics["fp32/latency_median_ms"]["value"] == 6.0
    assert metrics["fp32/engine_bytes"]["value"] == 65536
    assert metrics["fp32/top1"]["value"] == hop["quality"]["top1"]
    held = ["gate", exported.run, "--device", folder.name, "--baseline", baseline]
    result = CliRunner().invoke(app, [*map(str, held)])
    assert result.exit_code == 3  # the small recipe has too few processes to tell a change from chance
    checks = {check["metric"]: check["verdict"] for check in exported.json("gate.json")["checks"]}
    assert checks["fp32/latency_median_ms"] == "insufficient"
    assert {verdict for name, verdict in checks.items() if "latency" not in name and "memory" not in name} == {"pass"}
    result = CliRunner().invoke(app, ["gate", str(exported.run), "--device", "nano"])
    assert "was not measured on a device 'nano'" in str(result.exception)

    export = exported.json("export.json")
    export["onnx"]["fp32"]["sha256"] = "0" * 64
    (exported.run / "export.json").write_text(json.dumps(export))
    result = CliRunner().invoke(app, ["gate", str(exported.run), "--device", folder.name])
    assert "it was measured before the run was exported anew" in str(result.exception)


def test_onnx_file_of_no_run_is_built_and_measured_by_trtexec(board: str, exported: Finished) -> None:
    model = exported.run / "export/student.fp32.onnx"
    shown = kdedge("profile", model, "--backend", "trt", "--target", board, *QUICK)
    assert "student.fp32" in shown
    assert "run by trtexec 10.3.0" in shown
    assert not list(exported.run.glob("**/*.engine"))
    result = CliRunner().invoke(app, ["profile", str(exported.run), "--backend", "trt", "--target", board])
    assert "a run has the one that it was exported for" in str(result.exception)
    result = CliRunner().invoke(app, ["profile", str(model), "--backend", "tr", "--target", board])
    assert "unknown backend 'tr': did you mean 'trt'" in str(result.exception)


def test_run_and_an_onnx_file_take_turns_by_trtexec(board: str, exported: Finished) -> None:
    """Of the program's queries after the warm-up, half take 6 ms and half 6.25 ms."""
    model = exported.run / "export/student.fp32.onnx"
    shown = kdedge("gate", exported.run, "--against", model, "--target", board)
    assert "gate passed: no worse than student.fp32.onnx" in " ".join(shown.split())
    (times,) = exported.json("against.json")["times"]
    assert (times["name"], times["ratios"], times["base_ms"]) == ("fp32", [1.0] * 5, 6.125)
