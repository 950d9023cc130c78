"""The agent on a board that has trtexec alone, against a program that behaves like it."""

import json
import math
import time
from importlib.util import find_spec

import faketrtexec
import numpy as np
import pytest

from kdedge.core.errors import KdedgeError, MissingTool, ModelError
from kdedge.profile import trtexec_backend, trtexec_energy
from kdedge.profile.agent import respond
from kdedge.profile.answers import run_batches
from kdedge.profile.energy import Trace
from kdedge.profile.trtexec_backend import TrtexecBackend
from kdedge.profile.trtexec_timing import replay

X = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 1, 1], [2, 2, 2]], dtype=np.float32)


@pytest.fixture
def board(tmp_path, monkeypatch):
    """board(version, fault, packages) puts trtexec on the PATH, and hides TensorRT's packages but for those named."""

    def make(version="v100300", fault="", packages=()):
        (tmp_path / "bin").mkdir(exist_ok=True)
        faketrtexec.install(tmp_path / "bin", version, fault)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(trtexec_backend, "find_spec", lambda name: find_spec("json") if name in packages else None)

    return make


@pytest.fixture
def build(tmp_path, linear):
    def made(batch="n", **options):
        engine = tmp_path / "linear.engine"
        files = {"onnx": str(linear(batch)), "out": str(engine)}
        reply = respond({"mode": "build", "backend": "trt", "options": options, **files})
        return engine, reply, json.loads((tmp_path / "linear.engine.json").read_text())

    return made


def seen(tmp_path):
    return json.loads((tmp_path / "bin/seen").read_text())


def test_device_tells_whose_numbers_they_will_be(board):
    board(packages=["tensorrt"])
    match = respond({"mode": "device", "backend": "trt"})["device"]["match"]
    assert (match["tensorrt"], match["trtexec"]) == ("10.3.0", "10.3.0")


@pytest.mark.parametrize(("packages", "expected"), [([], True), (["tensorrt"], True), (["tensorrt", "pycuda"], False)])
def test_trtexec_stands_in_only_where_a_package_is_missing(packages, expected, board):
    board(packages=packages)
    assert trtexec_backend.stands_in("trt") is expected
    assert not trtexec_backend.stands_in("ort")


def test_without_trtexec_the_package_is_what_is_missing(board, monkeypatch, tmp_path):
    board()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("kdedge.profile.trtexec_options.PLACES", ())
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MissingTool, match="tensorrt is not installed"):
        respond({"mode": "device", "backend": "trt"})


def test_build_writes_the_engine_and_the_sidecar_of_the_backend(board, build, tmp_path):
    board()
    engine, reply, sidecar = build(opt_batch=2, max_batch=4, workspace_mib=64)
    assert engine.read_bytes() == b"0123456789abcdef" * 4096
    assert reply["precision_built"] == {"fp16": 1}
    assert sidecar["backend"] == "trt"
    assert sidecar["versions"] == {"tensorrt": "10.3.0", "gpu": "none", "trtexec": "10.3.0"}
    assert sidecar["inputs"] == [{"name": "x", "shape": [None, 3], "dtype": "float32"}]
    assert sidecar["outputs"] == [{"name": "y", "shape": [None, 2], "dtype": "float32"}]
    assert sidecar["fused_layers"] == 1
    assert sidecar["options"]["max_batch"] == 4
    wanted = {"--minShapes=x:1x3", "--optShapes=x:2x3", "--maxShapes=x:4x3", "--memPoolSize=workspace:64"}
    assert wanted < set(seen(tmp_path))


def test_build_begins_with_the_times_of_the_last_one(board, build, tmp_path):
    board()
    build()
    build()
    build(optimization_level=5)
    build(timing_cache=False)
    kept = sorted(path.read_text() for path in (tmp_path / "cache/tensorrt").glob("*.timing"))
    assert kept == ["timed ", "timed timed "]


def test_build_for_an_accelerator_says_what_it_took(board, build, tmp_path):
    board()
    sidecar = build(dla_core=1, gpu_fallback=True, weak_types=["fp16"], max_batch=2)[2]
    assert sidecar["dla"] == {"parts": ["{ForeignNode[a...b]}"], "gpu_layers": ["SHUFFLE: c"]}
    wanted = {"--useDLACore=1", "--allowGPUFallback", "--fp16", "--minShapes=x:2x3", "--maxShapes=x:2x3"}
    assert wanted < set(seen(tmp_path))


@pytest.mark.parametrize(
    ("version", "fault", "options", "error", "said"),
    [
        ("v100300", "", {"calibration": "a.npz"}, KdedgeError, "calibration of backend trt: trtexec takes no images"),
        ("v110100", "", {"weak_types": ["fp16"]}, KdedgeError, "TensorRT 11.1.0 takes types from the ONNX file only"),
        ("v100300", "", {"dla_core": 0}, KdedgeError, "computes in fp16 and int8 only, the model is fp32"),
        (
            "v100300", "no dla", {"dla_core": 0, "weak_types": ["fp16"]}, ModelError,
            "nothing of the engine runs on the deep learning accelerator",
        ),
        ("v8502", "", {"version_compatible": True}, MissingTool, "trtexec 8.5.2 has no option --versionCompatible"),
        ("v100300", "refused", {}, ModelError, "TensorRT does not take the ONNX file"),
        ("v100300", "", {"weak_types": ["int8"]}, ModelError, "was asked for in int8"),
    ],
)  # fmt: skip
def test_build_that_cannot_be_as_asked_leaves_nothing(version, fault, options, error, said, board, build, tmp_path):
    board(version, fault)
    with pytest.raises(error) as caught:
        build(**options)
    assert said in str(caught.value)
    assert not list(tmp_path.glob("*.engine*"))


def request(engine, **more):
    asked = {"backend": "trt", "model": str(engine), "options": {}, "shapes": {}, "batch": 2}
    return {**asked, "seconds": 0.05, "warmup_cap": 1.0, **more}


@pytest.mark.parametrize("version", ["v8502", "v100300", "v110100"])
def test_latency_is_of_the_queries_after_the_warm_up(version, board, build, tmp_path):
    """29.5 ms of computing, then 9.5, then 5.5, each with 0.25 ms of copying before and after."""
    board(version)
    engine = build()[0]
    reply = respond(request(engine, mode="latency"))
    sample = reply["sample"]
    assert sample["first_ms"] == 30.0
    assert (sample["warmup_queries"], sample["warmup_ms"], sample["settled"]) == (44, 304.0, True)
    assert sample["latency_ms"] == [6.0, 6.25] * 4 + [6.0]  # 55 ms, the first sum over 50
    assert sample["device_ms"] == [5.5, 5.75] * 4 + [5.5]
    assert sample["open_ms"] == 12.5
    assert 0 == sample["baseline_bytes"] < sample["peak_bytes"]
    assert reply["shapes"] == {"x": (2, 3)}
    assert reply["precision_built"] == {"fp16": 1}
    numbers = {"v8502": "8.5.2", "v100300": "10.3.0", "v110100": "11.1.0"}[version]
    assert reply["provider"] == f"TensorRT by trtexec {numbers}"
    assert reply["notes"] == [f"run by trtexec {numbers}, as this Python has no tensorrt and pycuda"]
    assert {"--shapes=x:2x3", "--duration=2", "--warmUp=0", "--exposeDMA"} < set(seen(tmp_path))


@pytest.mark.parametrize("mode", ["latency", "streams"])
def test_what_trtexec_doubts_is_passed_on(mode, board, build, tmp_path):
    board()
    engine = build()[0]
    told = tmp_path / "bin/trtexec.json"
    warning = "[W] The CUDA graph capture on the stream has failed.\\n[I] === Performance"
    told.write_text(told.read_text().replace("[I] === Performance", warning))
    reply = respond(request(engine, mode=mode, streams=1, batches=[2], warmup_cap=0.2, options={"cuda_graph": True}))
    assert "--useCudaGraph" in seen(tmp_path)
    assert reply["notes"][1:] == ["trtexec: the engine cannot be run as a CUDA graph"]


def test_streams_are_of_one_run_with_as_many(board, build, tmp_path):
    board()
    engine = build(max_batch=4)[0]
    reply = respond(request(engine, mode="streams", streams=3, batches=[2], seconds=1, warmup_cap=0.2))
    assert reply["latency_ms"] == [[6.5, 7.0, 6.75, 7.5]]
    assert reply["wall_ms"] == 27.75
    assert {"--infStreams=3", "--duration=1", "--warmUp=200", "--shapes=x:2x3"} < set(seen(tmp_path))
    with pytest.raises(ModelError, match="it takes 1 to 4"):
        respond(request(engine, mode="streams", streams=3, batches=[2, 8]))


def test_layers_have_their_times_and_the_nodes_that_the_engine_names(board, build, tmp_path):
    board()
    engine = build()[0]
    program = json.loads((tmp_path / "bin/trtexec.json").read_text())
    program[3]["layers"] = program[3]["layers"].replace("conv + relu", "Relu_1")
    (tmp_path / "bin/trtexec.json").write_text(json.dumps(program))
    reply = respond(request(engine, mode="layers", seconds=1, warmup_cap=0.2))
    assert (reply["queries"], reply["plain_ms"], reply["query_ms"]) == (12, 6.875, 4.0)
    nodes = ["/net/conv [0]", "/net/relu", "/net/add"]
    assert reply["layers"] == [
        {"name": 'Conv_0 "quoted\\', "kind": "", "nodes": [], "mean_ms": 3.0, "median_ms": 2.95},
        {"name": "Relu_1", "kind": "CaskConvolution", "nodes": nodes, "mean_ms": 1.0, "median_ms": 1.05},
    ]
    assert {"--dumpProfile", "--duration=1", "--warmUp=200"} < set(seen(tmp_path))


class Rail:
    name, scope = "a rail", "nothing left out"

    def close(self):
        pass


def test_energy_is_of_a_stretch_within_the_run(board, build, tmp_path, monkeypatch):
    """31 s at 7 W, from 1.2 s after the first query on, in which 144.144 queries a second are 4468."""
    board()
    engine = build()[0]
    monkeypatch.setattr(trtexec_energy, "power_source", Rail)
    traces = iter([(0, [2000.0] * 221), (60, None)])

    def record(source, block):
        length, milliwatts = next(traces)
        if length:
            block()
        times = time.perf_counter() + np.arange(0, length or 11.05, 0.05)
        busy = (times >= times[0] + 0.7) & (times <= times[0] + 32.7)
        return Trace(times, np.where(busy, 7000.0, 1000.0) if length else np.array(milliwatts), ("VDD_IN",))

    monkeypatch.setattr(trtexec_energy, "record", record)
    reply = respond(request(engine, mode="energy", repeats=1, seconds=30.0, warmup_cap=0.2))
    found = reply["energy"]
    assert found["inferences"] == 4468
    assert found["gross_mj"]["mean"] == pytest.approx(7000 * 31 / 4468)
    assert found["net_mj"]["mean"] == pytest.approx(5000 * 31 / 4468)
    assert (found["source"], found["idle_mw"]) == ("rail VDD_IN by a rail; nothing left out", 2000.0)
    assert {"--duration=33", "--warmUp=200"} < set(seen(tmp_path))


def test_energy_without_a_power_source_is_refused_before_latency_is_measured(board, build, tmp_path, monkeypatch):
    def none():
        raise MissingTool("no power source")

    board()
    engine = build()[0]
    monkeypatch.setattr("kdedge.profile.trtexec_timing.power_source", none)
    with pytest.raises(MissingTool, match="no power source"):
        respond(request(engine, mode="latency", energy=True))
    assert "--saveEngine" in " ".join(seen(tmp_path))  # nothing was run since the build


@pytest.mark.parametrize(("batch", "last"), [("n", ["--shapes=x:1x3"]), (2, [])])
def test_predict_asks_for_each_batch(batch, last, board, build, tmp_path):
    board()
    engine = build(batch, max_batch=2)[0]
    np.savez(tmp_path / "in.npz", x=X)
    files = {"arrays": str(tmp_path / "in.npz"), "outputs": str(tmp_path / "out.npz")}
    reply = respond(request(engine, mode="predict", **files))
    assert reply == {"rows": 5, "outputs": ["y"]}
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["y"].dtype == np.float32
        assert outputs["y"].tolist() == [[6, -6], [15, -15], [24, -24], [3, -3], [6, -6]]
    assert [option for option in seen(tmp_path) if option.startswith("--shapes")] == last
    assert {"--iterations=1", "--duration=0", "--warmUp=0"} < set(seen(tmp_path))


def test_answer_that_is_no_number_or_cut_is_seen(board, build):
    board(fault="not a number")
    engine = build()[0]
    with TrtexecBackend.found().open(engine, {}) as session:
        assert np.isnan(run_batches(session, {"x": X}, 8)["y"][0, 0])
    board(fault="cut answer")
    with TrtexecBackend.found().open(engine, {}) as session, pytest.raises(KdedgeError, match="y does not hold the"):
        session.run({"x": X})


def test_engine_of_another_version_or_machine_is_refused(board, build, tmp_path):
    board()
    engine = build()[0]
    board("v110100")
    with pytest.raises(ModelError, match=r"versions.tensorrt: built with 10.3.0, here 11.1.0"):
        respond(request(engine, mode="latency"))


def test_engine_that_the_python_package_built_is_not_opened_blindly(board, build, tmp_path):
    board()
    engine, _, sidecar = build()
    sidecar["versions"] = {"tensorrt": "10.3.0.30", "gpu": "none"}
    del sidecar["inputs"]
    (tmp_path / "linear.engine.json").write_text(json.dumps(sidecar))
    with pytest.raises(ModelError, match="the Python package built it"):
        TrtexecBackend.found().open(engine, {})


@pytest.mark.parametrize("times", [[5.0], [1.0, 9.0], [3.3] * 7, [1 / 3 + index for index in range(40)]])
def test_replayed_warm_up_ends_within_the_queries_there_are(times):
    warm = replay(np.array(times), math.inf)
    assert 1 <= warm.queries <= len(times)
    assert not warm.settled


def test_replayed_warm_up_ends_when_two_windows_agree():
    warm = replay(np.array([9.0] * 12 + [6.0] * 100), 10.0)
    assert (warm.queries, warm.settled) == (46, True)
