"""Where a model is measured: this machine, in a fresh process for every sample."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from kdedge.core import errors
from kdedge.core.errors import KdedgeError

PACKAGES = Path(__file__).parents[2]
# The kdedge that is running, whatever the current folder holds or else is installed.
START = """\
import sys
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
from kdedge.profile.agent import main
main()
"""


class Target(Protocol):
    def describe(self, backend: str) -> dict[str, Any]:
        """The machine's fingerprint."""

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """The agent's reply to one request, from a process of its own.

        Raises:
            KdedgeError: what the agent raised, or that it did not end well.
        """


class LocalTarget:
    def __init__(self, timeout: float = 900.0) -> None:
        self.timeout = timeout

    def describe(self, backend: str) -> dict[str, Any]:
        return dict(self.run({"mode": "device", "backend": backend})["device"])

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        command = [sys.executable, "-P", "-c", START, str(PACKAGES)]
        try:  # subprocess.run kills the agent when it is late and when this process is interrupted
            done = subprocess.run(
                command,
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=self.timeout,
            )
        except subprocess.TimeoutExpired:
            raise KdedgeError(f"agent, mode {request['mode']}", f"no reply within {self.timeout:g} s") from None
        return parse_reply(request, done)


def parse_reply(request: dict[str, Any], done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The reply, or the error it holds as the one that was raised over there."""
    try:
        reply: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise KdedgeError(f"agent, mode {request['mode']}, ended without a reply", _ending(done)) from None
    if error := reply.get("error"):
        raise getattr(errors, error["kind"])(error["what"], error["why"], error["fix"])
    return reply


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -signal.SIGKILL:
        return "killed (SIGKILL): most likely out of memory"
    said = done.stderr.strip().splitlines()
    status = signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"
    return f"{status}, its last words: {said[-1] if said else 'none'}"
