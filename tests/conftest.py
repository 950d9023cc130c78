"""What every test shares: two quiet cores, a cache of its own, no network, and components that may be missing."""

import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

CACHE = tempfile.TemporaryDirectory(prefix="kdedge-tests-")
os.environ["KDEDGE_CACHE"] = CACHE.name
os.environ["MPLCONFIGDIR"] = CACHE.name
os.environ["MPLBACKEND"] = "agg"
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # read once, when torch or numpy is first imported; child processes inherit it


@pytest.fixture(scope="session")
def needs() -> Callable[[object, str], None]:
    """`needs(present, "set X to ...")` skips a test whose component is missing; under KDEDGE_STRICT=1 it fails."""

    def check(present: object, how: str) -> None:
        if not present:
            (pytest.fail if os.environ.get("KDEDGE_STRICT") == "1" else pytest.skip)(how)

    return check


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be connected to."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            pytest.fail(f"a test connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
