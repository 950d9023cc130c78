"""What stops an export, and what it can be asked for."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forked import Forkserver
from mini import Finished

from kdedge.core.deployment import Export
from kdedge.core.errors import ModelError
from kdedge.core.load import load_recipe
from kdedge.core.precision import Fragility
from kdedge.core.report import ExportedFile
from kdedge.engine.base import backend
from kdedge.engine.graph import count_precisions
from kdedge.pipeline import export as export_command
from kdedge.pipeline.export import Exporting
from kdedge.pipeline.project import open_project, reopen

FRAGILE = Fragility(images=10, drop=0.6, baseline_drop=0.0, worse=7, better=1, p_value=0.035, limit=0.01)


def test_hop_that_loses_too_much_ends_the_run_with_what_it_lost(forkserver: Forkserver, copied: Finished) -> None:
    changes = ("--set", "export.precisions=[fp32, fp16]", "--set", "export.tolerance.fp16.max_error=0")
    before = reopen(copied.run).run.manifest.commands["export"]
    code, process = forkserver.run(["run", "mini.yaml", *changes], copied.folder)
    assert code == 2
    assert "error: a hop loses more than the recipe tolerates: onnx-fp16 against onnx-fp32: outputs differ by " in (
        process.stderr
    )
    assert "of the largest one, limit 0\n  see export.tolerance" in process.stderr
    assert "Traceback" not in process.stderr
    assert copied.json("export.json")["hops"][2]["problems"]
    assert reopen(copied.run).run.manifest.commands["export"] == before


def test_precisions_are_exported_from_fp32_whatever_their_order(forkserver: Forkserver, copied: Finished) -> None:
    (copied.folder / "turned.yaml").write_text("precisions: [int8, fp32]\ncalibration: {images: 64}\n")
    code, process = forkserver.run(["export", "--preset", "turned.yaml"], copied.folder)
    assert code == 0, process.stderr
    hops = [(hop["name"], hop["reference"]) for hop in copied.json("export.json")["hops"]]
    assert hops[:3] == [("torch", None), ("onnx-fp32", "torch"), ("onnx-int8", "onnx-fp32")]


def test_preset_is_exported_instead_of_the_recipes_section(forkserver: Forkserver, copied: Finished) -> None:
    preset = copied.folder / "pixels.yaml"
    preset.write_text("precisions: [fp32]\npreprocess: true\ndynamic_batch: false\nopset: 19\n")
    code, process = forkserver.run(["export", "--preset", "pixels.yaml"], copied.folder)
    assert code == 0, process.stderr
    assert copied.json("export.json")["opset"] == 19
    assert sorted(copied.json("export.json")["onnx"]) == ["fp32", "teacher"]
    hops = {hop["name"]: hop for hop in copied.json("export.json")["hops"]}
    assert hops["onnx-fp32"]["agreement"] == 1
    assert hops["engine-fp32"]["quality"]["top1"] == copied.json("training.json")["student"]["accuracy"]
    with backend("ort").open(copied.run / "export/student.fp32.onnx", {}) as session:
        assert session.inputs[0].dtype == "uint8"
        assert session.inputs[0].shape[0] == 1


def test_layers_that_int8_ruins_are_left_in_float(forkserver: Forkserver, copied: Finished) -> None:
    rough = "{precisions: [fp32, int8], calibration: {images: 64, method: percentile, percentile: 95}, "
    (copied.folder / "rough.yaml").write_text(rough + "tolerance: {int8: {accuracy_drop: 0.15}}}")
    code, process = forkserver.run(["export", "--preset", "rough.yaml"], copied.folder)
    assert code == 0, process.stderr
    found = copied.json("export.json")["sensitivity"]
    assert (found["split"], found["images"], found["limit"]) == ("validation", 80, 0.15)
    assert found["drop"] <= 0.15 < found["drop_everywhere"]
    kept = found["left_in_float"]
    assert list(found["errors"])[: len(kept)] == kept
    assert "int8 everywhere loses " in process.stdout
    with backend("ort").open(copied.run / copied.json("export.json")["engines"]["int8"]["path"], {}) as session:
        built = session.precision_built()
    assert built["int8"]
    assert built["fp32"] >= len(kept) > 0


def test_engine_that_is_int8_in_name_only_is_refused(copied: Finished) -> None:
    project = reopen(copied.run)
    work = Exporting(project, None)  # type: ignore[arg-type]  (nothing here needs images)
    shutil.copyfile(copied.run / "export/student.fp32.onnx", copied.run / "export/student.int8.onnx")
    with pytest.raises(ModelError, match=r"student\.int8\..* was asked for in int8: it was built with"):
        work.keep("int8", copied.run / "export/student.int8.onnx")


def exporting(finished: Finished, library: str) -> Exporting:
    """As if the run's int8 engine had been built for this backend."""
    project = reopen(finished.run)
    recipe = project.recipe
    export = recipe.export.model_copy(update={"backend": library})
    project = replace(project, recipe=recipe.model_copy(update={"export": export}))
    work = Exporting(project, None)  # type: ignore[arg-type]  (nothing here needs images)
    for name in ("fp16", "int8"):
        work.engines[name] = ExportedFile(path=f"engine/{name}.engine.onnx", bytes=1, sha256="")
    return work


def test_engine_that_does_not_say_what_it_computes_in_is_noted_and_not_refused(finished: Finished) -> None:
    work = exporting(finished, "ort_tensorrt")
    for name in ("fp16", "int8"):
        work.read_back(name, {})
        assert work.engines[name].notes == ["ort_tensorrt does not say what it computes in"]


def test_int8_for_the_cuda_provider_is_refused_with_the_reason(finished: Finished) -> None:
    work, quantized = exporting(finished, "ort_cuda"), finished.run / "export/student.int8.onnx"
    with pytest.raises(ModelError, match=r"CUDA provider computes in float between Q/DQ pairs") as caught:
        work.read_back("int8", count_precisions(quantized))  # of the file, as that backend counts
    assert "--set export.backend=ort_tensorrt" in caught.value.fix


@pytest.mark.parametrize(
    ("built", "notes"),
    [({"int8": 3, "fp32": 22}, ["only 3 of 25 nodes compute in int8"]), ({"int8": 18, "fp32": 3}, [])],
)
def test_int8_engine_that_is_mostly_float_says_so(finished: Finished, built: dict[str, int], notes: list[str]) -> None:
    work = exporting(finished, "ort")
    work.read_back("int8", built)
    assert work.engines["int8"].notes == notes


def test_export_says_which_layout_was_chosen_and_what_distillation_did_to_int8(finished: Finished) -> None:
    export, training = finished.json("export.json"), finished.json("training.json")
    assert export["layout"]["activations"] == "uint8"
    found = export["fragility"]
    assert found["images"] == training["test_images"]
    with (
        np.load(finished.run / "predictions/onnx-fp32.npz") as fp32,
        np.load(finished.run / "predictions/onnx-int8.npz") as int8,
        np.load(finished.run / "arrays/eval.npz") as arrays,
    ):
        right = [(hop["outputs"].argmax(1) == arrays["labels"]).mean() for hop in (fp32, int8)]
    assert found["drop"] == pytest.approx(right[0] - right[1])
    assert abs(found["baseline_drop"]) < 0.1
    assert "int8 costs the distilled student " in finished.completed.stdout + finished.completed.stderr


def test_comparison_with_the_undistilled_student_can_be_left_out(forkserver: Forkserver, copied: Finished) -> None:
    (copied.folder / "alone.yaml").write_text("precisions: [fp32, int8]\ntolerance: {int8: {extra_drop: null}}\n")
    code, process = forkserver.run(["export", "--preset", "alone.yaml"], copied.folder)
    assert code == 0, process.stderr
    assert copied.json("export.json")["fragility"] is None


def test_fragile_student_is_warned_of(
    copied: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = open_project(load_recipe(str(copied.recipe)), copied.folder / "runs")
    monkeypatch.setattr(export_command, "fragility", lambda *_: FRAGILE)
    export_command.run(project)
    assert "warning: int8 costs the distilled student 60.00 points and the undistilled one 0.00: over 1 points" in (
        capsys.readouterr().err
    )


def test_damaged_weights_are_an_error_that_names_the_file(copied: Finished) -> None:
    weights = copied.run / "student/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    project = open_project(load_recipe(str(copied.recipe)), copied.folder / "runs")
    with pytest.raises(ModelError, match=r"student/weights\.safetensors"):
        export_command.run(project)


def test_engine_runs_on_the_arrays_that_are_kept(finished: Finished) -> None:
    """The arrays, the engine and the predictions of a run fit each other: nothing else is needed on a device."""
    engine = finished.run / finished.json("export.json")["engines"]["int8"]["path"]
    with (
        np.load(finished.run / "arrays/eval.npz") as arrays,
        np.load(finished.run / "predictions/engine-int8.npz") as kept,
    ):
        with backend("ort").open(engine, Export().backend_options) as session:
            answers = session.run({session.inputs[0].name: arrays["images"]})
        np.testing.assert_allclose(next(iter(answers.values())), kept["outputs"], atol=1e-4)
        assert np.array_equal(arrays["ids"], kept["ids"])


def test_paths_in_the_record_are_those_of_the_run(finished: Finished) -> None:
    export = finished.json("export.json")
    for file in [*export["onnx"].values(), *export["engines"].values()]:
        assert Path(finished.run / file["path"]).stat().st_size == file["bytes"]
