"""The driver, against a program that behaves like trtexec of three versions and fails in each way that trtexec does."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import faketrtexec
import pytest
from trtexec_texts import FAILED

from kdedge.core.errors import KdedgeError, MissingTool, ModelError
from kdedge.profile.trtexec import build_engine, profile_layers, redact, time_engine
from kdedge.profile.trtexec_log import Version
from kdedge.profile.trtexec_options import DEVICE, END_TO_END, PROFILE, Build, Load, find_trtexec, switch_options

ENGINE = b"0123456789abcdef" * 4096


@pytest.fixture
def program(tmp_path):
    def make(version="v100300", fault=""):
        (tmp_path / "bin").mkdir(exist_ok=True)
        return find_trtexec(str(faketrtexec.install(tmp_path / "bin", version, fault)))

    return make


def seen(tmp_path):
    """The options that the program was last given, without the files' folders."""
    return [re.sub(r"=/\S*/", "=", option) for option in json.loads((tmp_path / "bin/seen").read_text())]


def test_program_is_found_on_the_path_with_its_version_and_options(tmp_path, monkeypatch):
    path = faketrtexec.install(tmp_path, "v8502")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_trtexec()
    assert (found.path, str(found.version)) == (str(path), "8.5.2")
    assert found.options == set(faketrtexec.OPTIONS["v8502"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "trtexec is not installed: looked for it at"),
        ("#!/nowhere/python\n", "does not start: "),
        (
            "#!/bin/sh\necho libnvinfer.so.10 is missing\n",
            "does not say its version: it says: libnvinfer.so.10 is missing",
        ),
        (
            "#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v8402] # trtexec'\n",
            "is of TensorRT 8.4.2: kdedge needs 8.5 or newer",
        ),
    ],
)
def test_program_that_is_none_is_refused(content, said, tmp_path):
    path = tmp_path / "trtexec"
    if content is not None:
        path.write_text(content)
        path.chmod(0o755)
    with pytest.raises(MissingTool) as caught:
        find_trtexec(str(path))
    assert said in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("version", "build", "options"),
    [
        ("v8502", Build(("int8", "fp16")), ["--buildOnly", "--int8", "--fp16"]),
        ("v100300", Build(("int8", "fp16")), ["--skipInference", "--stronglyTyped"]),
        (
            "v100300",
            Build(("int8",), dla_core=1, gpu_fallback=True),
            ["--skipInference", "--int8", "--useDLACore=1", "--allowGPUFallback"],
        ),
        ("v110100", Build(("int8", "fp16")), ["--skipInference"]),
        (
            "v110100",
            Build(shapes=({"x": (1, 3)}, {"x": (8, 3)}, {"x": (16, 3)})),
            ["--skipInference", "--minShapes=x:1x3", "--optShapes=x:8x3", "--maxShapes=x:16x3"],
        ),
        ("v100300", Build(("fp16",), weak=True, refit=True), ["--skipInference", "--fp16", "--refit"]),
        (
            "v110100",
            Build(version_compatible=True, hardware_compatibility="ampere_plus", optimization_level=5),
            [
                "--skipInference",
                "--versionCompatible",
                "--hardwareCompatibilityLevel=ampere+",
                "--builderOptimizationLevel=5",
            ],
        ),
    ],
)
def test_build_gives_each_version_its_options(version, build, options, program, tmp_path):
    log, layers = build_engine(program(version), Path("net.onnx"), tmp_path / "net.engine", build)
    always = ["--onnx=net.onnx", "--saveEngine=net.engine", "--exportLayerInfo=layers.json"]
    always += ["--memPoolSize=workspace:1024"]
    always += ["--profilingVerbosity=detailed", "--noTF32"]
    assert sorted(seen(tmp_path)) == sorted(always + options)
    assert (tmp_path / "net.engine").read_bytes() == ENGINE
    assert log.numbers == {"engine_mib": 0.0625, "built_s": 8.25}
    assert [(layer.name, layer.precision) for layer in layers] == [("conv + relu", "fp16"), ("Reformat 1", "")]


@pytest.mark.parametrize(
    ("version", "switches", "options"),
    [
        ("8.5.2", DEVICE, ["--noDataTransfers", "--useSpinWait", "--useCudaGraph"]),
        ("10.16.1", END_TO_END, ["--exposeDMA"]),
        ("10.16.1", PROFILE, ["--noDataTransfers"]),
        ("11.0.0", DEVICE, []),
        ("11.0.0", END_TO_END, ["--includeDataTransfers", "--noSpinWait", "--noCudaGraph", "--exposeDMA"]),
        ("11.4.0", PROFILE, ["--noSpinWait", "--noCudaGraph"]),
    ],
)
def test_switches_mean_the_same_in_each_version(version, switches, options):
    assert switch_options(Version(*map(int, version.split("."))), switches) == options


@pytest.mark.parametrize("version", ["v8502", "v100300", "v110100"])
@pytest.mark.parametrize("switches", [DEVICE, END_TO_END])
def test_time_reads_every_query_back(version, switches, program, tmp_path):
    load = Load(switches, shapes={"in:0": (1, 3, 8, 8), "x": ()}, seconds=3)
    evidence = tmp_path / "times.log"
    log, times = time_engine(program(version), tmp_path / "net.engine", load, evidence)
    assert times.compute_ms.tolist() == faketrtexec.TIMES
    assert log.numbers["queries"] == 4
    streams = "--streams=1" if version == "v8502" else "--infStreams=1"
    assert {streams, "--duration=3", "--warmUp=200", "--percentile=50,90,95,99"} < set(seen(tmp_path))
    assert "--shapes='in:0':1x3x8x8,x:scalar" in seen(tmp_path)
    assert "GPU-(serial)" in evidence.read_text()
    assert "&&&& PASSED" in evidence.read_text()


def test_accelerator_is_timed_without_a_graph(program, tmp_path):
    time_engine(program(), tmp_path / "net.engine", Load(dla_core=0))
    assert "--useDLACore=0" in seen(tmp_path)
    assert "--useCudaGraph" not in seen(tmp_path)


def test_profile_has_times_and_nodes_of_the_layers(program, tmp_path):
    log, times, layers = profile_layers(program(), tmp_path / "net.engine", Load())
    assert [layer.name for layer in times] == ['Conv_0 "quoted\\', "Relu_1"]
    assert layers[0].nodes == ("/net/conv [0]", "/net/relu", "/net/add")
    assert len(log.layers) == 2


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("no engine", KdedgeError, "trtexec says 0.0625 MiB, but wrote 0 bytes"),
        ("cut", KdedgeError, "trtexec says 0.0625 MiB, but wrote 100 bytes"),
        ("disk full", KdedgeError, "the engine cannot be written: Saving engine to file failed\n  df -h"),
        ("refused", ModelError, 'TensorRT does not take the ONNX file: While parsing node number 3 [Det -> "y"]'),
        ("killed", KdedgeError, "trtexec was killed: most likely out of memory"),
    ],
)
def test_failed_build_leaves_the_earlier_engine_and_its_text(fault, error, said, program, tmp_path):
    engine, evidence = tmp_path / "out/net.engine", tmp_path / "build.log"
    engine.parent.mkdir()
    engine.write_text("earlier")
    with pytest.raises(error) as caught:
        build_engine(program(fault=fault), Path("net.onnx"), engine, Build(), evidence)
    assert said in str(caught.value)
    assert engine.read_text() == "earlier"
    assert list(engine.parent.iterdir()) == [engine]
    assert "&&&& RUNNING" in evidence.read_text()


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (
            "other gpu",
            ModelError,
            "the engine was built for another GPU: expecting compute 8.7 got compute 7.2\n  kdedge export",
        ),
        ("no times", KdedgeError, "trtexec says that it passed, but exported no file"),
        (
            "other times",
            KdedgeError,
            "3 exported queries, median 6.25 ms, are not those of its summary: 4.0, median 6.375 ms",
        ),
        ("other switches", KdedgeError, "trtexec ran with CUDA Graph: Disabled, not Enabled"),
    ],
)
def test_times_that_are_not_what_was_asked_for_are_refused(fault, error, said, program, tmp_path):
    with pytest.raises(error) as caught:
        time_engine(program(fault=fault), tmp_path / "net.engine", Load())
    assert said in str(caught.value)


def test_engine_behind_a_header_is_explained(program, tmp_path, monkeypatch):
    engine = tmp_path / "yolo.engine"
    engine.write_bytes((19).to_bytes(4, "little") + b'{"author": "nobody"}' + ENGINE)
    monkeypatch.setattr("faketrtexec.texts.OTHER_GPU", "[E] Magic tag does not match\n" + FAILED)
    with pytest.raises(ModelError, match="it begins with a JSON header, as ultralytics writes"):
        time_engine(program(fault="other gpu"), engine, Load())


def test_option_that_the_program_does_not_have_is_not_given_to_it(program, tmp_path):
    assert program("v8502").either("--infStreams", "--streams") == "--streams"
    with pytest.raises(MissingTool, match=r"trtexec 8\.5\.2 has no option --stronglyTyped"):
        program("v8502").command(["--stronglyTyped"])


def test_program_that_hangs_is_killed_at_its_limit(program, tmp_path):
    with pytest.raises(
        KdedgeError, match=r"the engine of net.onnx: trtexec has not ended after 3 s: its last words: \[I\]"
    ):
        build_engine(program(fault="hang"), Path("net.onnx"), tmp_path / "net.engine", Build(), limit_s=3)
    assert not alive(int((tmp_path / "bin/started").read_text()))
    assert not list(tmp_path.glob("*net.engine*"))


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


DRIVER = """\
import sys
from pathlib import Path
from kdedge.profile.trtexec import build_engine
from kdedge.profile.trtexec_options import Build, find_trtexec
build_engine(find_trtexec(sys.argv[1]), Path("net.onnx"), Path("net.engine"), Build(), Path("build.log"))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_interruption_leaves_neither_the_program_nor_half_an_engine(number, tmp_path):
    (tmp_path / "bin").mkdir()
    path = faketrtexec.install(tmp_path / "bin", fault="hang")
    os.mkfifo(tmp_path / "bin/started")
    with subprocess.Popen([sys.executable, "-c", DRIVER, str(path)], cwd=tmp_path, stderr=subprocess.DEVNULL) as driver:
        process = int((tmp_path / "bin/started").read_text())  # blocks until the program has begun to write
        watch = os.pidfd_open(process)
        driver.send_signal(number)
        driver.wait()
    ended(watch)
    if number != signal.SIGKILL:
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bin", "build.log"]
        assert "&&&& RUNNING" in (tmp_path / "build.log").read_text()


def ended(watch):
    """Wait for the end of a process that is not a child."""
    assert select.select([watch], [], [], 60)[0]
    os.close(watch)


def test_text_is_kept_without_serial_number_and_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    text = "UUID: GPU-31e9692b-62b7-2d62-f0b1-f4195b568ac7 # trtexec --onnx=/home/somebody/net.onnx"
    assert redact(text) == "UUID: GPU-(serial) # trtexec --onnx=~/net.onnx"
