"""`kdedge profile --batches`, `--streams` and `--layers`."""

import json
from pathlib import Path

import onnx
import pytest
from forked import Forkserver
from mini import Finished
from onnx import TensorProto, helper

from kdedge.core.errors import KdedgeError
from kdedge.core.profiling import LayersReport, SweepReport
from kdedge.core.rundir import RunDir
from kdedge.pipeline.closer import Layers, Look, Sweep, asked
from kdedge.profile.sweep import Axes

NOTHING = {"layers": False, "batches": None, "streams": None, "energy": False, "batch": None}
QUICK = ("--seconds", "0.02", "--threads", "1")


@pytest.mark.parametrize(
    ("given", "axes"),
    [
        ({"batches": "4,1"}, Axes((1, 4), (1,))),
        ({"streams": "1,2"}, Axes((), (1, 2))),
        ({"streams": "1,2", "batch": 8}, Axes((), (1, 2))),
        ({"batches": "2", "streams": "3"}, Axes((2,), (3,))),
    ],
)
def test_lists_are_the_axes_of_a_sweep(given: dict, axes: Axes) -> None:
    look = asked(**{**NOTHING, **given})
    assert isinstance(look, Sweep)
    assert look.axes == axes


def test_layers_are_looked_at_by_themselves() -> None:
    assert isinstance(asked(**{**NOTHING, "layers": True, "batch": 4}), Layers)


@pytest.mark.parametrize(
    ("look", "largest"), [(Sweep(Axes((1, 16))), 16), (Sweep(Axes(streams=(1, 2))), 4), (Layers(), 4)]
)
def test_largest_batch_is_what_an_engine_is_built_for(look: Look, largest: int) -> None:
    assert look.largest(4) == largest


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"layers": True, "batches": "1"}, "--layers and --batches"),
        ({"layers": True, "energy": True}, "--layers and --energy"),
        ({"batches": "1", "streams": "2", "energy": True}, "--batches and --streams and --energy"),
        ({"batches": "1", "batch": 2}, "--batch and --batches"),
    ],
)
def test_two_things_at_once_are_refused(given: dict, what: str) -> None:
    with pytest.raises(KdedgeError) as caught:
        asked(**{**NOTHING, **given})
    assert caught.value.what == what


def test_sweep_of_a_run_is_kept_beside_its_profiles(forkserver: Forkserver, copied: Finished) -> None:
    before = RunDir(copied.run).manifest.commands["profile"]
    code, process = forkserver.run(["profile", "--batches", "1,2", "--streams", "2", *QUICK, "--json"], copied.folder)
    assert code == 0, process.stderr
    reports = [SweepReport.model_validate(report) for report in json.loads(process.stdout)]
    assert [report.name for report in reports] == ["fp32", "fp16", "int8", "teacher"]
    for report in reports:
        assert [(point.batch, point.streams) for point in report.points] == [(1, 2), (2, 2)]
        assert copied.json(f"profile/sweep-{report.name}.json") == report.model_dump(mode="json")
    manifest = RunDir(copied.run).manifest
    assert manifest.commands["profile"] == before
    assert len(manifest.commands["sweep"].artifacts) == 4


def test_layers_of_a_run_are_led_back_to_its_onnx_files(forkserver: Forkserver, copied: Finished) -> None:
    code, process = forkserver.run(["profile", "--layers", *QUICK], copied.folder)
    assert code == 0, process.stderr
    assert "layers of fp32: batch 1, 1 threads" in process.stdout
    assert "layers add up to " in process.stdout
    report = LayersReport.model_validate(copied.json("profile/layers-fp32.json"))
    assert sum(layer.share for layer in report.layers) == pytest.approx(1)
    convolutions = [layer for layer in report.layers if layer.kind in ("Conv", "FusedConv")]
    assert convolutions
    assert all(any("Conv" in node for node in layer.nodes) for layer in convolutions)


def test_batch_that_a_model_does_not_take_is_one_message(forkserver: Forkserver, copied: Finished, fixed: Path) -> None:
    code, process = forkserver.run(["profile", str(fixed), "--batches", "1,2,4", *QUICK], copied.folder)
    assert code == 2
    assert process.stderr == (
        "error: batch 2, 4 for fixed.onnx: it takes 1 only\n"
        "  --batches 1   (others: export it with a dynamic or a larger batch)\n"
    )


def test_model_that_is_none_is_refused(forkserver: Forkserver, copied: Finished) -> None:
    code, process = forkserver.run(["profile", "absent.onnx", "--layers"], copied.folder)
    assert code == 2
    assert "absent.onnx is not there" in process.stderr


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    """A model of one image at a time."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "neg", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "fixed.onnx")
    return tmp_path / "fixed.onnx"
