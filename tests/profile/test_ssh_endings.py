"""However a run over SSH ends, nothing of it is left on the device."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kdedge.core.errors import KdedgeError
from kdedge.profile import connection
from kdedge.profile.leftovers import LOCK
from kdedge.profile.targets import parse_target

REQUEST = {"mode": "predict", "backend": "ort"}
# An agent that, with a program that it started, holds the FIFO open until it is killed.
ENDLESS = """\
import os, signal, subprocess, sys
command = open("/proc/self/cmdline").read().split(chr(0))
if any(word.endswith(".pyz") for word in command):
    fifo = os.open({fifo!r}, os.O_WRONLY)
    open("half a file", "w").write("half")
    program = subprocess.Popen(["sleep", "1000"], pass_fds=[fifo])
    os.write(fifo, b"runs")
    signal.pause()
"""
RUN = """\
import sys
from kdedge.profile.targets import parse_target
with parse_target(sys.argv[1]) as target:
    target.run({"mode": "predict", "backend": "ort"})
"""


class Busy:
    """A device whose agent runs without end."""

    def __init__(self, device, folder: Path) -> None:
        self.cache, self.fifo = device.cache, folder / "fifo"
        os.mkfifo(self.fifo)
        venv = folder / "endless"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        [packages] = venv.glob("lib/python*/site-packages")
        (packages / "sitecustomize.py").write_text(ENDLESS.format(fifo=str(self.fifo)))
        self.url = device.url(str(venv / "bin/python"))

    def wait_until_it_runs(self) -> None:
        self.pipe = self.fifo.open("rb", buffering=0)
        assert self.pipe.read(4) == b"runs"
        [folder] = self.cache.glob("run-*")
        assert (folder / "half a file").is_file()

    def wait_until_it_ends(self) -> None:
        """Until no process holds the FIFO, nor the lock, which the device keeps until it has cleaned up."""
        with self.pipe as pipe, (self.cache / LOCK).open() as lock:
            assert pipe.read() == b""
            fcntl.flock(lock, fcntl.LOCK_EX)

    @property
    def supervisor(self) -> int:
        return int((self.cache / LOCK).read_text().split()[0])

    def left(self) -> list[str]:
        return sorted(path.name.split("-")[0] for path in self.cache.iterdir())


@pytest.fixture
def busy(device, tmp_path):
    return Busy(device, tmp_path)


def sshd_of(process: int) -> int:
    """The server's process that holds the connection to one that it started."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_host_that_is_interrupted_or_killed_leaves_nothing(busy, end):
    host = subprocess.Popen([sys.executable, "-c", RUN, busy.url], stderr=subprocess.PIPE, text=True)
    busy.wait_until_it_runs()
    host.send_signal(end)
    busy.wait_until_it_ends()
    _, said = host.communicate()
    assert ("KeyboardInterrupt" in said) == (end == signal.SIGINT)
    assert host.returncode == -end
    assert busy.left() == ["agent", "lock"]


class Run(threading.Thread):
    """A run in this process, and the error that it ended with."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.target, self.error = parse_target(url), None
        self.start()

    def run(self) -> None:
        try:
            with self.target:
                self.target.run(REQUEST)
        except KdedgeError as error:
            self.error = error

    def end(self) -> str:
        self.join()
        return str(self.error)


@pytest.mark.parametrize("who", ["supervisor", "sshd", "ssh"])
def test_connection_that_breaks_leaves_nothing_and_is_said_so(busy, who):
    run = Run(busy.url)
    busy.wait_until_it_runs()
    find = {
        "supervisor": lambda: busy.supervisor,
        "sshd": lambda: sshd_of(busy.supervisor),
        "ssh": lambda: run.target._connection._ssh.pid,
    }
    os.kill(find[who](), signal.SIGKILL)
    busy.wait_until_it_ends()
    assert run.end().startswith("the connection to device was lost: ")
    assert busy.left() == ["agent", "lock"]


def test_host_that_falls_silent_is_taken_for_gone(busy, monkeypatch):
    monkeypatch.setattr(connection, "SILENCE", 1)
    monkeypatch.setattr(connection, "BEAT", 0.1)
    run = Run(busy.url)
    busy.wait_until_it_runs()
    ssh = run.target._connection._ssh.pid
    os.kill(ssh, signal.SIGSTOP)
    busy.wait_until_it_ends()
    assert busy.left() == ["agent", "lock"]
    os.kill(ssh, signal.SIGCONT)
    assert run.end().startswith("the connection to device was lost: ")


def test_agent_that_does_not_reply_in_time_is_ended_with_its_connection(busy, monkeypatch):
    class Timer(threading.Thread):
        """Expires when the agent runs."""

        def __init__(self, seconds, end):
            super().__init__(target=lambda: seconds == 900 and (busy.wait_until_it_runs(), end()))

        def cancel(self):
            pass

    monkeypatch.setattr(threading, "Timer", Timer)
    with (
        parse_target(busy.url) as target,
        pytest.raises(KdedgeError, match="device device: no reply within 900 s"),
    ):
        target.run(REQUEST)
    busy.wait_until_it_ends()
    assert busy.left() == ["agent", "lock"]


def test_leftovers_of_a_crash_are_removed_by_the_next_run_but_not_what_is_in_use(device):
    names = ["run-crashed", "run-in-use", "run-new"]
    for name in names:
        (device.cache / name).mkdir(parents=True)
        (device.cache / name / LOCK).touch()
    (device.cache / "part-crashed").touch()
    (device.cache / "agent-old.pyz").touch()
    (device.cache / "timing").touch()  # somebody else's
    hour, year = time.time() - 3600, time.time() - 365 * 86400
    os.utime(device.cache / "part-crashed", (hour, hour))
    os.utime(device.cache / "agent-old.pyz", (year, year))
    for name in names[:2]:
        os.utime(device.cache / name, (hour, hour))
    with (device.cache / "run-in-use" / LOCK).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with parse_target(device.url()) as target:
            target.describe("ort")
    assert sorted(path.name for path in device.cache.iterdir() if "agent" not in path.name) == [
        "lock",
        "run-in-use",
        "run-new",
        "timing",
    ]
    assert len(list(device.cache.glob("agent-*"))) == 1
