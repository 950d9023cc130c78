"""`kdedge export --trt`: TensorRT engines, built for real, on a machine that may have no GPU to run them."""

from collections.abc import Callable

import pytest
import realtrt
from forked import Forkserver
from mini import Finished

from kdedge.core.load import load_preset
from kdedge.engine.machine import gpu
from kdedge.pipeline.project import reopen

WITHOUT = "import sys; sys.modules['tensorrt'] = None"


def test_backend_of_the_recipe_keeps_its_section_and_another_takes_its_preset(finished: Finished) -> None:
    project = reopen(finished.run)
    assert project.recipe.export.backend == "ort"
    assert project.with_backend(None) is project.with_backend("ort") is project
    assert project.with_backend("trt").recipe.export == load_preset("tensorrt")
    assert project.with_backend("trt").with_backend("ort").recipe.export == load_preset("onnxruntime_cpu")


def test_missing_tensorrt_ends_with_5_and_leaves_the_run(forkserver: Forkserver, copied: Finished) -> None:
    before = copied.json("export.json")
    code, process = forkserver.run(["export", "--trt"], copied.folder, setup=WITHOUT)
    assert code == 5
    assert process.stderr.startswith("error: tensorrt is not installed: backend trt needs it\n")
    assert 'pip install "kdedge[tensorrt]"; on a Jetson' in process.stderr
    assert copied.json("export.json") == before


@pytest.mark.skipif(bool(gpu()), reason="engines run here: CUDA_VISIBLE_DEVICES= hides the GPU")
def test_engines_are_built_without_a_gpu_and_said_not_to_have_run(
    forkserver: Forkserver, copied: Finished, needs: Callable[[object, str], None]
) -> None:
    needs(realtrt.FOLDER, realtrt.HOW)
    code, process = forkserver.run(["export", "--trt"], copied.folder, setup=realtrt.IMPORTABLE)
    assert code == 0, process.stderr
    note = "built but not run: no NVIDIA GPU on this machine"
    assert f"engines were {note}" in process.stderr
    export = copied.json("export.json")
    assert export["backend"] == "trt"
    assert [hop["name"] for hop in export["hops"]] == ["torch", "onnx-fp32", "onnx-fp16", "onnx-int8"]
    assert set(export["engines"]) == {"fp32", "fp16", "int8", "teacher"}
    for precision, engine in export["engines"].items():
        assert engine["notes"] == [note]
        built = copied.json(engine["path"] + ".json")["precision"]
        assert {"teacher": "fp32"}.get(precision, precision) in built

    code, process = forkserver.run(["profile"], copied.folder, setup=realtrt.IMPORTABLE)
    assert code == 5
    assert "was built here, but does not run here: no NVIDIA GPU on this machine" in process.stderr


@pytest.mark.skipif(
    not gpu(), reason="TensorRT engines do not run here: run it on a machine with an NVIDIA GPU and pycuda"
)
def test_cascade_on_a_gpu_answers_as_the_whole_engine(
    forkserver: Forkserver, copied: Finished, needs: Callable[[object, str], None]
) -> None:
    needs(realtrt.FOLDER, realtrt.HOW)
    code, process = forkserver.run(["export", "--trt", "--exit", "all"], copied.folder, setup=realtrt.IMPORTABLE)
    assert code == 0, process.stderr
    export = copied.json("export.json")
    assert export["backend"] == "trt"
    assert not any("not run" in note for engine in export["engines"].values() for note in engine["notes"])
    hops = {hop["name"]: hop for hop in export["hops"]}
    for output in ("exit1/", "exit2/", ""):
        for precision in ("fp32", "fp16", "int8"):
            assert hops[f"{output}cascade-{precision}"]["reference"] == f"{output}engine-{precision}"
        assert hops[f"{output}cascade-fp32"]["max_error"] <= 1e-5
        assert hops[f"{output}cascade-fp32"]["agreement"] == 1
