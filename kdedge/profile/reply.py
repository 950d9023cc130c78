"""What an agent replied, or how it ended without a reply."""

import json
import signal
import subprocess
from typing import Any

from kdedge.core import errors
from kdedge.core.errors import KdedgeError


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
