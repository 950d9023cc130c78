"""What every test shares: two quiet cores, a cache of its own, no network, and components that may be missing."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import Forkserver
from hypothesis import HealthCheck, settings
from mini import Finished, finish

CACHE = tempfile.TemporaryDirectory(prefix="kdedge-tests-")
os.environ["KDEDGE_CACHE"] = CACHE.name
os.environ["MPLCONFIGDIR"] = CACHE.name
os.environ["MPLBACKEND"] = "agg"
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # read once, when torch or numpy is first imported; child processes inherit it
for ours in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):  # of the job that runs the tests
    os.environ.pop(ours, None)
# A shell's background job ignores the one, nohup the other, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Neither says anything about the code where a machine is busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def needs() -> Callable[[object, str], None]:
    """`needs(present, "set X to ...")` skips a test whose component is missing; under KDEDGE_STRICT=1 it fails."""

    def check(present: object, how: str) -> None:
        if not present:
            (pytest.fail if os.environ.get("KDEDGE_STRICT") == "1" else pytest.skip)(how)

    return check


@pytest.fixture(scope="session")
def forkserver() -> Forkserver:
    """Runs kdedge commands in processes that need not import torch anew."""
    return Forkserver()


@pytest.fixture(scope="session")
def finished(forkserver: Forkserver, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A small recipe and all that `kdedge run` made of it; to be read only."""
    return finish(forkserver, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Finished:
    """A copy of it that a test may change."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    return Finished(tmp_path, finished.killed, finished.completed)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be connected to."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            pytest.fail(f"a test connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
