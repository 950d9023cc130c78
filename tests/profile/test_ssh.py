"""A device over SSH, with a real server on this machine."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from kdedge.core.deployment import Profile
from kdedge.core.errors import KdedgeError, MissingTool, ModelError
from kdedge.engine.cascade import Link, cascade_record
from kdedge.profile.measure import profile_model
from kdedge.profile.predict import predict
from kdedge.profile.targets import parse_target

X = np.arange(15, dtype=np.float32).reshape(5, 3)
ONE = {"threads": 1}


@pytest.fixture
def asked(tmp_path):
    np.savez(tmp_path / "in.npz", x=X)

    def request(model):
        files = {"model": str(model), "arrays": str(tmp_path / "in.npz"), "outputs": str(tmp_path / "new/out.npz")}
        return {"mode": "predict", "backend": "ort", "options": ONE, "batch": 2, **files}

    return request


def outputs(request):
    with np.load(request["outputs"]) as arrays:
        return arrays["y"].tolist()


def bare_python(folder, sitecustomize=""):
    """The Python of a virtual environment without any package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "sitecustomize.py").write_text(sitecustomize)
    return str(folder / "bin/python")


def test_engine_is_built_profiled_and_asked_over_there(device, linear, asked, tmp_path, python):
    engine, model = tmp_path / "built/linear.engine.onnx", linear()
    with parse_target(device.url(python)) as target:
        reply = target.run({"mode": "build", "backend": "ort", "onnx": str(model), "out": str(engine), "options": ONE})
        sidecar = json.loads((tmp_path / "built/linear.engine.onnx.json").read_text())
        assert sidecar["engine_sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
        assert sidecar["onnx_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
        spec = Profile().model_copy(update={"processes": 2, "seconds": 0.02, "warmup_cap": 0.2, "threads": 1})
        report = profile_model(engine, "ort", spec, shapes={"x": (2, 3)}, target=target)
        answered = target.run(asked(engine))
    assert [len(sample.latency_ms) >= 5 for sample in report.samples] == [True, True]
    there = subprocess.run([python, "-c", "import platform as p; print(p.python_version())"], capture_output=True)
    assert report.device["note"]["python"] == there.stdout.decode().strip()
    assert reply["device"]["match"]["onnxruntime"] == sidecar["versions"]["onnxruntime"]
    assert answered == {"rows": 5, "outputs": ["y"]}
    assert outputs(asked(engine)) == (X @ np.array([[1, 2], [3, 4], [5, 6]])).tolist()


@pytest.fixture(params=["this", "3.8"])
def python(request):
    """This Python, and the oldest that a board may have."""
    if request.param == "this":
        return sys.executable
    named = os.environ.get("KDEDGE_PYTHON38")
    found = named or shutil.which("python3.8") or sys.executable
    probe = [found, "-c", "import numpy, onnxruntime, sys; assert sys.version_info[:2] == (3, 8)"]
    done = subprocess.run(probe, capture_output=True, text=True)
    assert done.returncode == 0 or not named, done.stderr
    if done.returncode:
        pytest.skip("set KDEDGE_PYTHON38 to a Python 3.8 with numpy and onnxruntime")
    return found


def test_nothing_but_the_agent_and_the_lock_stays_there(device, linear, asked):
    with parse_target(device.url()) as target:
        target.run(asked(linear()))
        [folder] = device.cache.glob("run-*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    [agent] = device.cache.glob("agent-*.pyz")
    assert sorted(path.name for path in device.cache.iterdir()) == [agent.name, "lock"]
    assert agent.stem == "agent-" + hashlib.sha256(agent.read_bytes()).hexdigest()


def test_agent_is_sent_once_and_again_when_its_bytes_are_others(device):
    def describe():
        with parse_target(device.url()) as target:
            target.describe("ort")
        [agent] = device.cache.glob("agent-*.pyz")
        return agent, agent.stat().st_ino, agent.read_bytes()

    agent, first, content = describe()
    assert describe()[1] == first
    agent.write_bytes(content[:1000])
    assert describe()[2] == content


def test_files_are_sent_again_only_when_they_have_changed(device, linear, asked, tmp_path, monkeypatch):
    request, sent = asked(linear()), []
    with parse_target(device.url()) as target:
        target.run(request)
        put = target._connection.put
        monkeypatch.setattr(target._connection, "put", lambda name, *rest: sent.append(name) or put(name, *rest))
        target.run(request)
        assert sent == []
        np.savez(tmp_path / "in.npz", x=X[:1])
        assert target.run(request)["rows"] == 1
    assert [Path(name).name for name in sent] == ["in.npz"]


def test_engine_that_was_built_over_there_is_not_sent_back(device, linear, asked, tmp_path, monkeypatch):
    engine, model = tmp_path / "built/linear.engine.onnx", linear()
    with parse_target(device.url()) as target:
        target.run({"mode": "build", "backend": "ort", "onnx": str(model), "out": str(engine), "options": ONE})
        sent, put = [], target._connection.put
        monkeypatch.setattr(target._connection, "put", lambda name, *rest: sent.append(name) or put(name, *rest))
        assert target.run(asked(engine))["rows"] == 5
        assert [Path(name).name for name in sent] == ["in.npz"]
        engine.write_bytes(engine.read_bytes() + b"changed")
        with pytest.raises(ModelError, match="its bytes are not those"):
            target.run(asked(engine))
    assert [Path(name).name for name in sent] == ["in.npz", "linear.engine.onnx"]


def test_file_that_an_option_names_travels(device, linear, asked, tmp_path):
    request = asked(linear())
    np.savez(tmp_path / "calibration.npz", x=X)
    request["options"] = {**ONE, "calibration": str(tmp_path / "calibration.npz")}
    with parse_target(device.url()) as target, pytest.raises(KdedgeError, match="unknown option 'calibration'"):
        target.run(request)
    request["options"]["calibration"] = str(tmp_path / "none.npz")
    with parse_target(device.url()) as target, pytest.raises(ModelError, match=r"none\.npz: there is no such file"):
        target.run(request)


def test_model_goes_with_the_files_that_hold_its_weights(device, linear, asked, tmp_path):
    model = onnx.load(linear())
    (tmp_path / "apart").mkdir()
    path = tmp_path / "apart/model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0)
    assert (tmp_path / "apart/model.data").is_file()
    with parse_target(device.url()) as target:
        assert target.run(asked(path))["rows"] == 5


def test_cascade_goes_with_its_engines(device, linear, tmp_path):
    linear()
    links = [Link("linear.onnx", "x", None, "y")]
    (tmp_path / "cascade.json").write_text(json.dumps(cascade_record("fp32", "ort", ONE, links)))
    np.savez(tmp_path / "images.npz", images=X)
    files = {"model": str(tmp_path / "cascade.json"), "arrays": str(tmp_path / "images.npz")}
    request = {"mode": "cascade", "backend": "ort", "threshold": 0.5, "images": 2, "warmup_cap": 0.1, **files}
    with parse_target(device.url()) as target:
        assert target.run(request)["labels"] == [1, 1]
        logits = predict(target, "ort", tmp_path / "cascade.json", tmp_path / "images.npz", ONE)["y"]
    assert logits.tolist() == (X @ np.array([[1, 2], [3, 4], [5, 6]])).tolist()


def test_errors_name_the_files_of_this_machine(device, tmp_path, asked):
    (tmp_path / "broken.onnx").write_text("no model")
    with parse_target(device.url()) as target:
        with pytest.raises(ModelError) as broken:
            target.run(asked(tmp_path / "broken.onnx"))
        with pytest.raises(ModelError) as absent:
            target.run(asked(tmp_path / "absent.onnx"))
    assert broken.value.what == f"model {tmp_path}/broken.onnx"
    assert str(absent.value) == f"model {tmp_path}/absent.onnx: there is no such file"
    assert not (tmp_path / "new/out.npz").exists()


@pytest.mark.parametrize("greeting", ["echo Welcome to the board", "printf Welcome", """printf '{"kdedge"\\n\\n> '"""])
def test_login_shell_that_greets_is_no_obstacle(greeting, serve):
    device = serve(f'ForceCommand {greeting}; eval "$SSH_ORIGINAL_COMMAND"')
    with parse_target(device.url()) as target:
        assert target.describe("ort")["match"]["cpus"] >= 1


def test_second_run_at_once_is_refused_or_waits(device, linear, asked):
    request = asked(linear())
    holder, second = parse_target(device.url()), parse_target(device.url())
    with holder, second:
        holder.run(request)
        with pytest.raises(KdedgeError, match=r"the device is in use: another run of kdedge has held it for \d+ s"):
            second.run(request)
        assert second.describe("ort")["match"]["cpus"] >= 1  # times nothing
        with parse_target(device.url(), wait=60) as patient:
            patient.describe("ort")
            waiting = threading.Thread(target=patient.run, args=(request,))
            waiting.start()
            holder.close()
            waiting.join()
            assert outputs(request)[0] == [13, 16]


def test_package_that_is_missing_there_is_named_with_the_line_that_installs_it(device, tmp_path):
    python = bare_python(tmp_path / "bare")
    with parse_target(device.url(python)) as target, pytest.raises(MissingTool) as caught:
        target.describe("ort")
    assert str(caught.value) == (
        f"numpy is not installed: the agent needs it\n  ssh device {python} -m pip install numpy"
    )


def test_tensorrt_that_is_missing_there_is_never_installed_with_pip(device):
    with parse_target(device.url()) as target, pytest.raises(MissingTool) as caught:
        target.describe("trt")
    assert caught.value.fix.startswith("ssh device -t sudo apt-get install python3-libnvinfer")


def test_device_without_a_python_is_told_from_one_that_cannot_be_reached(device):
    with parse_target(device.url("/absent/python")) as target, pytest.raises(MissingTool) as caught:
        target.describe("ort")
    assert caught.value.what == "/absent/python on device"
    device.stop()
    with parse_target(device.url()) as target, pytest.raises(KdedgeError, match=r"device cannot be reached.*refused"):
        target.describe("ort")


def test_unknown_host_key_is_refused_whatever_the_configuration_says(device):
    device.known_hosts.write_text("")
    device.config.write_text("StrictHostKeyChecking no\n" + device.config.read_text())
    with parse_target(device.url()) as target, pytest.raises(KdedgeError) as caught:
        target.describe("ort")
    assert caught.value.what == "the host key of device is not known"
    assert caught.value.fix.startswith("ssh device   (once; compare the fingerprint")
    assert device.known_hosts.read_text() == ""
    assert not device.cache.exists()


def test_changed_host_key_is_refused(device):
    other = (device.folder / "user.pub").read_text()
    device.known_hosts.write_text(f"[127.0.0.1]:{device.port} {other}")
    with parse_target(device.url()) as target, pytest.raises(KdedgeError, match="is another one than before"):
        target.describe("ort")
    assert not device.cache.exists()


def test_wrong_user_key_is_answered_with_the_line_that_installs_one(device):
    (device.folder / "authorized").write_text("")
    with parse_target(device.url()) as target, pytest.raises(KdedgeError) as caught:
        target.describe("ort")
    assert caught.value.what == "device refuses every key of this user"
    assert caught.value.fix == "ssh-copy-id device"


FULL = """\
import os, tempfile
real = tempfile.mkstemp
def mkstemp(*args, **kwargs):
    if {condition}:
        handle, name = real(*args, **kwargs)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), name
    return real(*args, **kwargs)
tempfile.mkstemp = mkstemp
"""


def test_full_disk_is_said_so_when_the_agent_is_sent(device, tmp_path):
    python = bare_python(tmp_path / "full", FULL.format(condition="True"))
    with parse_target(device.url(python)) as target, pytest.raises(KdedgeError, match="the device's disk is full") as e:
        target.describe("ort")
    assert e.value.why == "No space left on device"
    assert list(device.cache.iterdir()) == []


def test_full_disk_is_said_so_when_a_model_is_sent_and_the_connection_goes_on(device, linear, asked, tmp_path):
    python = bare_python(tmp_path / "full", FULL.format(condition='"run-" in str(kwargs["dir"])'))
    with parse_target(device.url(python)) as target:
        with pytest.raises(KdedgeError, match="the device's disk is full"):
            target.run(asked(linear()))
        with pytest.raises(MissingTool):
            target.describe("ort")
        [folder] = device.cache.glob("run-*")
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["lock"]
