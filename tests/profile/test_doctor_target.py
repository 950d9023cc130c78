"""Doctor as a person calls it: of this machine, of a board over SSH, and of one that has next to nothing."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from boards import ORIN_NANO, give_modules
from tree import Programs, plant

from kdedge.core import console
from kdedge.core.errors import KdedgeError, MissingTool
from kdedge.pipeline import doctor as pipeline
from kdedge.profile.closure import agent_zip
from kdedge.profile.doctor import doctor
from kdedge.profile.ssh import SshTarget
from kdedge.profile.targets import parse_target


def bare(python, folder):
    """The Python of a virtual environment without any package, pip included."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder / "bin/python")


@pytest.fixture(params=["this", "3.8"])
def python(request, tmp_path):
    """One that has nothing but the standard library: of this version, and of the oldest that a board may have."""
    if request.param == "this":
        return bare(sys.executable, tmp_path / "bare")
    named = os.environ.get("KDEDGE_PYTHON38")
    found = named or shutil.which("python3.8") or sys.executable
    probe = [found, "-c", "import sys, venv; assert sys.version_info[:2] == (3, 8)"]
    done = subprocess.run(probe, capture_output=True, text=True)
    assert done.returncode == 0 or not named, done.stderr
    if done.returncode:
        pytest.skip("set KDEDGE_PYTHON38 to a Python 3.8")
    return bare(found, tmp_path / "bare")


def test_agent_looks_with_the_standard_library_alone(python, tmp_path):
    (tmp_path / "agent.pyz").write_bytes(agent_zip())
    command, request = [python, "-I", "agent.pyz"], json.dumps({"mode": "doctor", "now": 0})
    done = subprocess.run(command, input=request, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    reply = json.loads(done.stdout)
    lines = {line["topic"]: line for line in reply["findings"]}
    assert [lines[name]["found"] for name in ("numpy", "onnxruntime", "tensorrt")] == ["not installed"] * 3
    assert lines["numpy"]["state"] == "fix"
    assert lines["numpy"]["fix"].endswith("-m pip install numpy")
    assert lines["python"]["found"].startswith(reply["machine"]["note"]["python"])
    assert reply["machine"]["note"]["numpy"] is None
    assert reply["backends"] == []


def test_board_over_ssh_that_has_all(device, capsys):
    with parse_target(device.url()) as target:
        reply = target.run({"mode": "doctor", "now": 0})
    assert {line["topic"]: line["state"] for line in reply["findings"]}["onnxruntime"] == "ok"
    assert "ort" in reply["backends"]
    assert sorted(path.name.split("-")[0] for path in device.cache.iterdir()) == ["agent", "lock"]


def test_board_over_ssh_that_lacks_all_ends_with_what_to_type_there(device, python):
    command = [sys.executable, "-m", "kdedge.cli", "doctor", device.url(python)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 5
    install = f"{python} -m ensurepip; {python} -m pip install numpy"
    assert f"\nto type there, after ssh device\n  numpy        {install}\n" in done.stdout
    assert "builds and measures" not in done.stdout
    assert done.stderr == (
        f"error: {device.url(python)} can neither build engines nor measure them: "
        "it has no inference library that works\n"
        f"  ssh device   and there: {install}\n"
    )


def test_doctor_looks_while_another_run_holds_the_device(device, tmp_path):
    url = device.url(bare(sys.executable, tmp_path / "bare"))
    with parse_target(url) as holder, parse_target(url) as second:
        with pytest.raises(MissingTool, match="numpy is not installed"):
            holder.run({"mode": "predict", "backend": "ort"})
        with pytest.raises(KdedgeError, match="the device is in use"):
            second.run({"mode": "predict", "backend": "ort"})
        assert second.run({"mode": "doctor"})["backends"] == []


@pytest.mark.parametrize(
    ("fault", "kind", "what", "fix"),
    [
        ("key", KdedgeError, "device refuses every key of this user", "ssh-copy-id device"),
        ("host", KdedgeError, "the host key of device is not known", "ssh device   (once; compare the fingerprint"),
        ("down", MissingTool, "device cannot be reached", "ssh device true   (has to end well, and ask nothing)"),
    ],
)
def test_login_that_fails_is_told_with_the_line_to_type(device, capsys, fault, kind, what, fix):
    if fault == "key":
        (device.folder / "authorized").write_text("")
    elif fault == "host":
        device.known_hosts.write_text("")
    else:
        device.stop()
    with pytest.raises(kind) as caught:
        pipeline.run(device.url())
    assert caught.value.what == what
    assert caught.value.fix.startswith(fix)
    assert caught.value.exit_code == (5 if fault == "down" else 2)
    assert capsys.readouterr().out == ""


def test_board_without_a_python_that_is_new_enough_is_told_so(serve, tmp_path):
    serve(f'ForceCommand PATH={tmp_path}; eval "$SSH_ORIGINAL_COMMAND"')
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "sh").symlink_to("/bin/sh")
    with pytest.raises(MissingTool) as caught:
        pipeline.run("ssh://device")
    assert str(caught.value) == (
        "device has no Python of 3.8 or newer: the agent needs one\n"
        "  ssh device -t sudo apt-get install python3   (Ubuntu 18.04: python3.8)"
    )


@pytest.fixture
def orin(tmp_path, monkeypatch):
    """What is told of an SSH target is told of an Orin Nano made of files, without pycuda."""
    (tmp_path / "programs").mkdir()
    Programs(tmp_path / "programs", monkeypatch).add("dpkg-query", "echo 'ii  libnvinfer10 10.3.0.30-1+cuda12.5'")
    monkeypatch.setattr("kdedge.profile.trtexec_options.PLACES", ())
    monkeypatch.setattr("kdedge.engine.machine.gpu", lambda: "Orin 8.7")
    monkeypatch.syspath_prepend(str(give_modules(tmp_path / "packages", tensorrt="__version__ = '10.3.0'")))
    root = plant(tmp_path / "root", ORIN_NANO)
    monkeypatch.setattr(SshTarget, "run", lambda self, request: doctor(request, root))


def test_table_shows_what_is_there_and_below_it_what_to_type(orin, capsys):
    console.OUT.configure()
    pipeline.run("ssh://me@board:22")
    said = capsys.readouterr().out
    table, _, typed = said.partition("\nto type there, after ssh -p 22 me@board\n")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    assert said.startswith("ssh://me@board:22\n")
    assert ["ok", "tensorrt", "10.3.0, package 10.3.0.30+cuda12.5"] in rows
    assert ["fix", "pycuda", "not installed: TensorRT's engines are run by it"] in rows
    assert ["advice", "clocks", "not pinned: short runs are slower and noisier than long ones"] in rows
    lines = typed.splitlines()
    assert lines[0].startswith("  pycuda       export PATH=/usr/local/cuda/bin:$PATH; ")
    assert lines[-1] == "builds and measures with: ort"


def test_json_has_findings_backends_and_the_machine(orin, capsys):
    console.OUT.configure(as_json=True)
    try:
        pipeline.run("ssh://me@board")
    finally:
        console.OUT.configure()
    reply = json.loads(capsys.readouterr().out)
    assert sorted(reply) == ["backends", "findings", "machine"]
    assert reply["machine"]["module"] == "nvidia,p3768-0000+p3767-0005-super"
    assert sorted(reply["findings"][0]) == ["fix", "found", "state", "topic", "why"]
    assert "me@board" not in json.dumps(reply["machine"])


def test_other_targets_are_refused_with_the_line_of_doctor():
    with pytest.raises(KdedgeError) as caught:
        pipeline.run("jetson")
    assert str(caught.value) == (
        "target jetson: expected local, or a device reached over SSH\n  kdedge doctor ssh://user@host"
    )
