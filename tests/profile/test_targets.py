import subprocess

import pytest

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.profile import targets
from kdedge.profile.reply import parse_reply
from kdedge.profile.ssh import SshTarget
from kdedge.profile.targets import LocalTarget, parse_target

DEVICE = {"mode": "device", "backend": "ort"}


def test_describe_is_the_fingerprint_seen_from_a_fresh_process():
    import onnxruntime

    assert LocalTarget().describe("ort")["match"]["onnxruntime"] == onnxruntime.__version__


def test_agent_is_found_from_any_folder_whatever_lies_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "numpy.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "kdedge").mkdir()
    (tmp_path / "kdedge/__init__.py").write_text("raise SystemExit('nor this one')")
    assert LocalTarget().describe("ort")["match"]["cpus"] >= 1


def test_error_of_the_agent_is_raised_here_as_it_was_there(tmp_path):
    with pytest.raises(ModelError) as caught:
        LocalTarget().run({"mode": "latency", "backend": "ort", "model": str(tmp_path / "absent.onnx")})
    assert caught.value.what.endswith("absent.onnx")
    assert caught.value.why == "there is no such file"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", r"ended without a reply: killed \(SIGKILL\): most likely out of memory"),
        ("import os; os.abort()", "ended without a reply: SIGABRT, its last words: none"),
        ("raise TypeError('a bug')", "ended without a reply: status 1, its last words: TypeError: a bug"),
        ("print('no JSON')", "ended without a reply: status 0, its last words: none"),
    ],
)
def test_agent_that_dies_is_reported_with_how_it_ended(monkeypatch, program, said):
    monkeypatch.setattr(targets, "START", program)
    with pytest.raises(KdedgeError, match=said):
        LocalTarget().run(DEVICE)


def test_agent_that_does_not_reply_in_time_is_killed(monkeypatch):
    monkeypatch.setattr(targets, "START", "import signal; signal.pause()")
    with pytest.raises(KdedgeError, match=r"agent, mode device: no reply within 0.5 s"):
        LocalTarget(timeout=0.5).run(DEVICE)


def test_error_reply_keeps_its_kind_and_exit_code():
    reply = '{"error": {"kind": "MissingTool", "what": "onnxruntime", "why": "", "fix": "install it"}}'
    with pytest.raises(KdedgeError) as caught:
        parse_reply(DEVICE, subprocess.CompletedProcess([], 5, reply, ""))
    assert (type(caught.value).__name__, caught.value.exit_code, caught.value.fix) == ("MissingTool", 5, "install it")


def test_target_is_this_machine_unless_another_is_named():
    assert isinstance(parse_target(), LocalTarget)
    assert isinstance(parse_target("local"), LocalTarget)


def test_target_over_ssh_is_called_as_the_user_calls_it(monkeypatch):
    monkeypatch.setenv("KDEDGE_SSH_COMMAND", "ssh -F 'my config'")
    target = parse_target("ssh://nano@board:2222")
    assert isinstance(target, SshTarget)
    assert target.command == ["ssh", "-F", "my config"]


@pytest.mark.parametrize("text", ["board", "http://board", "nano@board", "ssh:board"])
def test_unknown_kind_of_target_is_refused_with_the_line_to_type(text):
    with pytest.raises(KdedgeError, match=rf"--target {text}: expected local.*\n  --target ssh://user@host"):
        parse_target(text)


def test_build_has_hours_and_a_request_a_quarter(monkeypatch):
    given = []

    def run(*_, timeout, **__):
        given.append(timeout)
        return subprocess.CompletedProcess([], 0, "{}", "")

    monkeypatch.setattr(subprocess, "run", run)
    LocalTarget().run({"mode": "build"})
    LocalTarget().run({"mode": "latency"})
    assert given == [4 * 3600, 900]


def test_command_that_is_set_to_nothing_is_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDEDGE_SSH_COMMAND", "")
    target = parse_target("ssh://board")
    assert isinstance(target, SshTarget)
    assert target.command == ["ssh"]
