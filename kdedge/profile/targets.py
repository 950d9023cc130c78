"""Where a model is measured: this machine or a device reached over SSH, in a fresh process for every sample."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from kdedge.core.errors import KdedgeError
from kdedge.profile.address import SCHEME, parse_address
from kdedge.profile.reply import parse_reply
from kdedge.profile.ssh import SshTarget, allowed

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
    """To be used in a with-block, within which a device is held for this run alone."""

    def describe(self, backend: str) -> dict[str, Any]:
        """The machine's fingerprint."""

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """The agent's reply to one request, from a process of its own.

        The files that the request names are this machine's, wherever the agent runs: what it reads is there for it,
        and what it writes is here when this returns.

        Raises:
            KdedgeError: what the agent raised, or that it did not end well.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalTarget:
    """This machine.

    Args:
        timeout: seconds for a request; a build has hours.
    """

    def __init__(self, timeout: float = 900.0) -> None:
        self.timeout = timeout

    def describe(self, backend: str) -> dict[str, Any]:
        return dict(self.run({"mode": "device", "backend": backend})["device"])

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        command = [sys.executable, "-P", "-c", START, str(PACKAGES)]
        limit = allowed(request["mode"], self.timeout)
        try:  # subprocess.run kills the agent when it is late and when this process is interrupted
            done = subprocess.run(
                command,
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            raise KdedgeError(f"agent, mode {request['mode']}", f"no reply within {limit:g} s") from None
        return parse_reply(request, done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def parse_target(text: str = "local", *, wait: float = 0.0) -> Target:
    """`local`, or `ssh://[user@]host[:port][?python=PATH]` with a host or an alias of the user's SSH configuration.

    KDEDGE_SSH_COMMAND, `ssh` by default, is how SSH is called.

    Args:
        wait: seconds to wait for a device that another run measures on.

    Raises:
        KdedgeError: the text is neither.
    """
    if text in ("", "local"):
        return LocalTarget()
    if not text.startswith(SCHEME):
        raise KdedgeError(
            f"--target {text}", "expected local, or a device reached over SSH", f"--target {SCHEME}user@host"
        )
    command = shlex.split(os.environ.get("KDEDGE_SSH_COMMAND") or "ssh")
    return SshTarget(parse_address(text), wait=wait, command=command)
