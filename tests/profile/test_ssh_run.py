"""`kdedge profile --target ssh://...`, of a run and of a model, with a real server on this machine."""

import json
import shutil

from forked import Forkserver
from mini import Finished
from typer.testing import CliRunner

from kdedge.cli import app
from kdedge.core.rundir import RunDir

QUICK = ("--processes", "1", "--seconds", "0.02", "--threads", "1")


def test_run_is_built_compared_and_measured_over_there(device, copied: Finished):
    result = CliRunner().invoke(app, ["profile", str(copied.run), "--target", device.url(), *QUICK])
    assert result.exit_code == 0, result.output
    [folder] = copied.run.glob("devices/*")
    report = json.loads((folder / "device.json").read_text())
    hops = {hop["name"]: hop for hop in report["hops"]}
    assert list(hops) == ["engine-fp32", "engine-fp16", "engine-int8"]
    here = {hop["name"]: hop for hop in copied.json("export.json")["hops"]}
    for name, hop in hops.items():
        assert hop["reference"] == here[name]["reference"]
        assert hop["quality"]["top1"] == here[name]["quality"]["top1"]
    assert report["profiles"] == ["fp16", "fp32", "int8", "teacher"]
    for name in report["profiles"]:
        profile = json.loads((folder / f"profile/{name}.json").read_text())
        assert profile["latency"]["n"] > 0
        assert (folder / "engine" / profile["model"]).is_file()
    assert "engine-int8" in result.output
    run, name = RunDir(copied.run), f"devices/{folder.name}"
    assert run.fresh(name, run.manifest.commands[name].key)


def test_engine_that_loses_too_much_over_there_is_refused_when_all_is_written(device, copied: Finished):
    saved = json.loads((copied.run / "recipe.json").read_text())
    saved["recipe"]["export"]["tolerance"]["fp32"] = {"agreement": 1.0, "max_error": 0.0}
    (copied.run / "recipe.json").write_text(json.dumps(saved))
    shutil.copyfile(copied.run / "predictions/onnx-int8.npz", copied.run / "predictions/onnx-fp32.npz")
    result = CliRunner().invoke(app, ["profile", str(copied.run), "--target", device.url(), *QUICK])
    assert "a hop loses more than the recipe tolerates" in str(result.exception)
    assert "engine-fp32 against onnx-fp32: outputs differ by " in str(result.exception)
    assert list(copied.run.glob("devices/*/device.json"))


def test_model_is_measured_over_there(device, copied: Finished):
    model = copied.run / "export/student.fp32.onnx"
    result = CliRunner().invoke(app, ["profile", str(model), "--target", device.url(), *QUICK])
    assert result.exit_code == 0, result.output
    assert "student.fp32" in result.output
    assert not list(copied.run.glob("devices/*"))


def test_exits_are_chosen_and_measured_over_there(device, forkserver: Forkserver, copied: Finished):
    preset = copied.folder / "exits.yaml"
    preset.write_text("precisions: [fp32]\nexits: all\nengines: device\nbackend_options: {threads: 1}\n")
    code, process = forkserver.run(["export", "--preset", "exits.yaml"], copied.folder)
    assert code == 0, process.stderr
    assert copied.json("export.json")["engines"] == {}
    result = CliRunner().invoke(app, ["exits", str(copied.run), "--threshold", "0.9"])
    assert "its export leaves them to the device that will run them" in str(result.exception)
    result = CliRunner().invoke(app, ["exits", str(copied.run), "--threshold", "0.9", "--target", device.url()])
    assert result.exit_code == 0, (result.output, result.exception)
    [folder] = copied.run.glob("devices/*")
    report = json.loads((folder / "exits.json").read_text())
    hops = {hop["name"]: hop for hop in copied.json("export.json")["hops"]}
    for end, name in zip(report["exits"], ("exit1/onnx-fp32", "exit2/onnx-fp32", "onnx-fp32"), strict=True):
        assert end["test_top1"] == hops[name]["quality"]["top1"]
        assert end["latency_ms"] > 0
    assert report["measured"]["processes"] == copied.json("recipe.json")["recipe"]["profile"]["processes"]
    assert json.loads((folder / "engine/cascade.fp32.json").read_text())["threshold"] == 0.9
    assert json.loads((copied.run / "engine/cascade.fp32.json").read_text())["threshold"] is None
    assert not (copied.run / "exits.json").exists()
    run, name = RunDir(copied.run), f"exits on {folder.name}"
    assert run.fresh(name, run.manifest.commands[name].key)
