"""A run exported up to one of its exits, and with all of them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from forked import Forkserver
from mini import RECIPE, Finished, write_recipe

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.core.load import load_recipe
from kdedge.core.report import ExportReport
from kdedge.data.build import build_data
from kdedge.engine.cascade import open_cascade
from kdedge.export.onnx import read_metadata
from kdedge.pipeline.gate import read_records
from kdedge.pipeline.heads import built_methods, choose_exits, trainer_of_exits
from kdedge.pipeline.networks import build
from kdedge.pipeline.project import CARD, Project, open_project, reopen
from kdedge.pipeline.summary import summary_rows
from kdedge.report.parity import class_columns

FP32 = "precisions: [fp32]\ncalibration: {images: 64}\n"


def exported(forkserver: Forkserver, finished: Finished, folder: Path, exit_: str, preset: str = FP32) -> Finished:
    shutil.copytree(finished.folder, folder, dirs_exist_ok=True)
    (folder / "exits.yaml").write_text(preset)
    code, process = forkserver.run(["export", "--preset", "exits.yaml", "--exit", exit_], folder)
    assert code == 0, process.stderr
    return Finished(folder, finished.killed, finished.completed)


@pytest.fixture(scope="module")
def first(forkserver: Forkserver, finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Exported with --exit 1/3, and profiled."""
    place = exported(forkserver, finished, tmp_path_factory.mktemp("first"), "1/3")
    code, process = forkserver.run(["profile"], place.folder)
    assert code == 0, process.stderr
    return place


@pytest.fixture(scope="module")
def every(forkserver: Forkserver, finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Exported with --exit all, in every precision."""
    preset = FP32.replace("[fp32]", "[fp32, fp16, int8]")
    return exported(forkserver, finished, tmp_path_factory.mktemp("every"), "all", preset)


def initializers(path: Path) -> int:
    return sum(int(np.prod(value.dims)) for value in onnx.load(path).graph.initializer)


def test_one_exit_is_a_smaller_network_as_good_as_training_said(first: Finished, finished: Finished) -> None:
    export, training = first.json("export.json"), first.json("training.json")["student"]
    assert export["exit"] == "1/3"
    (point,) = export["exits"]
    assert (point["name"], point["stage"], point["output"]) == ("1/3", "stage1", "logits")
    assert point["params"] < training["params"] / 2
    assert point["macs"] < training["macs"]
    top1 = {hop["name"]: hop["quality"]["top1"] for hop in export["hops"]}
    assert list(top1) == ["torch", "onnx-fp32", "engine-fp32"]
    assert set(top1.values()) == {training["exits"]["stage1"]}
    path, whole = first.run / "export/student.fp32.onnx", finished.run / "export/student.fp32.onnx"
    assert initializers(path) < initializers(whole) / 2
    assert read_metadata(path)["exit"] == "1/3"
    assert not list(first.run.glob("*/cascade*"))


def test_one_exits_costs_are_what_the_summary_and_the_gate_speak_of(
    forkserver: Forkserver, first: Finished, tmp_path: Path
) -> None:
    shutil.copytree(first.folder, tmp_path, dirs_exist_ok=True)
    place = Finished(tmp_path, first.killed, first.completed)
    code, process = forkserver.run(["gate"], tmp_path)
    assert code == 0, process.stderr
    point, metrics = place.json("export.json")["exits"][0], place.json("gate.json")["metrics"]
    assert metrics["student/params"]["value"] == point["params"]
    assert metrics["student/macs"]["value"] == point["macs"]
    assert metrics["student/top1"]["value"] == place.json("training.json")["student"]["exits"]["stage1"]
    trained = place.json("training.json")
    gain = trained["student"]["exits"]["stage1"] - trained["baseline"]["accuracy"]  # of the network that is deployed
    assert metrics["student/top1_gain"]["value"] == pytest.approx(gain)
    assert metrics["fp32/onnx_bytes"]["value"] == (place.run / "export/student.fp32.onnx").stat().st_size
    rows = {row[0]: row for row in summary_rows(*read_records(reopen(place.run)))}
    assert f"{point['params'] / 1e3:.3f}k" in rows["student fp32 (exit 1/3)"]


def test_last_exit_is_the_whole_student(forkserver: Forkserver, finished: Finished, tmp_path: Path) -> None:
    place = exported(forkserver, finished, tmp_path, "3/3")
    (point,), training = place.json("export.json")["exits"], place.json("training.json")["student"]
    assert (point["params"], point["macs"]) == (training["params"], training["macs"])
    assert place.json("export.json")["hops"][0]["quality"]["top1"] == training["accuracy"]


def test_all_exits_are_as_good_as_training_said_at_every_hop(every: Finished) -> None:
    export, training = ExportReport.model_validate(every.json("export.json")), every.json("training.json")["student"]
    assert export.exit == "all"
    assert [(point.name, point.stage, point.output) for point in export.exits] == [
        ("1/3", "stage1", "exit1"), ("2/3", "stage2", "exit2"), ("3/3", "stage3", "logits")
    ]  # fmt: skip
    assert [point.params for point in export.exits] == sorted(point.params for point in export.exits)
    extra = every.json("training.json")["student"]["extra_params"]
    assert export.exits[-1].params == training["params"] + extra
    hops = {hop.name: hop for hop in export.hops}
    for output, top1 in {"exit1/": training["exits"]["stage1"], "": training["accuracy"]}.items():
        for name in ("torch", "onnx-fp32", "engine-fp32", "cascade-fp32"):
            assert hops[output + name].quality.top1 == pytest.approx(top1, abs=1e-9)
    for precision in ("fp32", "int8"):
        for output in ("exit1/", "exit2/", ""):
            hop = hops[f"{output}cascade-{precision}"]
            assert hop.reference == f"{output}engine-{precision}"
            assert hop.max_error is not None
            assert hop.max_error < 1e-5
    assert hops["exit2/onnx-int8"].reference == "exit2/onnx-fp32"
    assert [hop.name for hop in class_columns(export)] == ["torch", "cascade-fp32", "cascade-fp16", "cascade-int8"]
    assert all((every.run / f"predictions/{name}.npz").is_file() for name in hops)


def test_cascade_of_the_run_answers_as_its_whole_engine(every: Finished) -> None:
    with np.load(every.run / "arrays/eval.npz") as arrays:
        images = arrays["images"][:40]
    for precision in ("fp32", "fp16", "int8"):
        with open_cascade(every.run / f"engine/cascade.{precision}.json") as cascade:
            assert (cascade.names, cascade.threshold) == (["exit1", "exit2", "logits"], None)
            whole = cascade.run(images, 1.1)
            early = cascade.run(images, 0.0)
        with np.load(every.run / f"predictions/engine-{precision}.npz") as kept:
            np.testing.assert_allclose(whole.logits, kept["outputs"][:40], atol=0.02)
        with np.load(every.run / f"predictions/exit1/engine-{precision}.npz") as kept:
            np.testing.assert_allclose(early.logits, kept["outputs"][:40], atol=0.02)
        assert (set(whole.exit), set(early.exit)) == ({2}, {0})


def test_what_is_exported_is_recorded_and_done_once(forkserver: Forkserver, every: Finished) -> None:
    manifest = reopen(every.run).run.manifest.commands["export"].artifacts
    assert {"engine/cascade.int8.json", "export/cascade2.fp16.onnx", "predictions/exit1/torch.npz"} <= set(manifest)
    assert "engine/cascade3.fp32.engine.onnx.json" in manifest
    code, process = forkserver.run(["export", "--preset", "exits.yaml", "--exit", "all"], every.folder)
    assert code == 0
    assert "export: unchanged" in process.stderr + process.stdout


@pytest.mark.parametrize(
    ("exit_", "told"),
    [
        ("5/4", "error: export.exits 5/4: valid: 1/3, 2/3, 3/3 (the whole student), all, none\n"),
        ("0/3", "error: export.exits 0/3: valid: 1/3, 2/3, 3/3 (the whole student), all, none\n"),
        ("1/4", "error: export.exits 1/4: valid: 1/3, 2/3, 3/3 (the whole student), all, none\n"),
        ("some", "error: --exit some: it must be none, all or K/N\n"),
    ],
)
def test_exit_that_does_not_exist_ends_in_a_line_with_those_that_do(
    forkserver: Forkserver, finished: Finished, exit_: str, told: str
) -> None:
    before = finished.json("export.json")
    code, process = forkserver.run(["export", str(finished.run), "--exit", exit_], finished.folder)
    assert code == 2
    assert told in process.stderr
    assert "Traceback" not in process.stderr
    assert finished.json("export.json") == before
    assert (finished.run / CARD).is_file()


SELF = "      - {name: self_distill, weight: 0.5}\n"


@pytest.mark.parametrize(
    ("text", "exits", "told"),
    [
        (RECIPE, "4/3", "export.exits: export.exits 4/3: valid: 1/3, 2/3, 3/3"),
        (RECIPE.replace(SELF, ""), "all", "no method in the recipe's last phase trains exits"),
    ],
    ids=["no such exit", "none trained"],
)
def test_exits_that_will_not_exist_are_told_before_training(
    forkserver: Forkserver, tmp_path: Path, text: str, exits: str, told: str
) -> None:
    write_recipe(tmp_path, text=text)
    code, process = forkserver.run(["run", "mini.yaml", "--set", f"export.exits={exits}"], tmp_path)
    assert code == 2
    assert told in process.stderr
    assert not list(tmp_path.glob("runs/*/student"))


def parts(project: Project) -> tuple[Any, Any, Any]:
    recipe = project.recipe
    dataset = build_data(recipe.data, recipe.seed)
    return recipe, dataset, build(recipe.student, dataset, recipe.seed)


def test_exits_of_two_methods_are_refused(tmp_path: Path) -> None:
    project = open_project(load_recipe(str(write_recipe(tmp_path))), tmp_path / "runs")
    methods = built_methods(*parts(project))
    assert trainer_of_exits(methods, "all") == "self_distill"
    with pytest.raises(ModelError, match="self_distill and other both train exits"):
        trainer_of_exits({**methods, "other": methods["self_distill"]}, "all")


def test_heads_that_do_not_fit_the_recipe_are_an_error(copied: Finished) -> None:
    project = reopen(copied.run).with_exit("1/3")
    uses = [
        {**use.model_dump(), "options": {"attention": "none"} if use.name == "self_distill" else {}}
        for use in project.recipe.phases[-1].methods
    ]
    recipe = project.recipe.model_dump()
    recipe["phases"][-1]["methods"] = uses
    other = replace(project, recipe=type(project.recipe).model_validate(recipe))
    with pytest.raises(ModelError, match=r"methods\.safetensors does not fit"):
        choose_exits(*parts(other), copied.run / "student")


@pytest.mark.parametrize("name", ["all", "2/3", "none"])
def test_exit_changes_what_is_exported_and_nothing_else(finished: Finished, name: str) -> None:
    project = reopen(finished.run)
    changed = project.with_exit(name)
    assert changed.recipe.export.exits == name
    assert changed.recipe.model_copy(update={"export": project.recipe.export}) == project.recipe
    assert (changed.key("export") == project.key("export")) == (name == "none")
    assert project.with_exit(None) is project
    with pytest.raises(KdedgeError, match="none, all or K/N"):
        project.with_exit("3 of 4")
