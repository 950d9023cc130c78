"""`kdedge profile --streams` and `--layers` over SSH, with a real server on this machine."""

import json

from mini import Finished
from typer.testing import CliRunner

from kdedge.cli import app
from kdedge.core.profiling import LayersReport, SweepReport
from kdedge.core.rundir import RunDir, read_record

QUICK = ("--seconds", "0.02", "--threads", "1")


def test_run_is_swept_and_its_layers_are_timed_over_there(device, copied: Finished):
    for asked in (("--streams", "1,2"), ("--layers",)):
        result = CliRunner().invoke(app, ["profile", str(copied.run), *asked, "--target", device.url(), *QUICK])
        assert result.exit_code == 0, (result.output, result.exception)
    [folder] = copied.run.glob("devices/*")
    sweep = read_record(folder / "profile/sweep-int8.json", SweepReport)
    assert [(point.batch, point.streams) for point in sweep.points] == [(1, 1), (1, 2)]
    layers = read_record(folder / "profile/layers-int8.json", LayersReport)
    assert any("Conv" in node for layer in layers.layers for node in layer.nodes)
    assert not (folder / "engine").exists()
    commands = RunDir(copied.run).manifest.commands
    assert {f"sweep on {folder.name}", f"layers on {folder.name}"} <= set(commands)
    assert len(commands[f"layers on {folder.name}"].artifacts) == 4


def test_model_is_swept_over_there(device, copied: Finished):
    model = copied.run / "export/student.fp32.onnx"
    asked = ["profile", str(model), "--batches", "1,2", "--target", device.url(), *QUICK]
    result = CliRunner().invoke(app, [*asked, "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert [point["batch"] for point in json.loads(result.stdout)["points"]] == [1, 2]
