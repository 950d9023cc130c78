"""The first that runs on a device: sent as source over ssh, it takes the agent's zip and goes on as its supervisor.

Orders and answers are lines of JSON; a line that names `bytes` is followed by them, and an empty line says that the
host is alive.  What cannot be done is answered with {"error": [what, why, fix]}.

    {"do": "open", "agent": SHA256, "silence": 60}         {"kdedge": "here", "agent": true}
    {"do": "agent", "bytes": N, "sha256": SHA256}          {}                   only if it was not there yet

Part of the device closure: Python 3.8, standard library only, and no module of kdedge before the zip is there.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from io import BufferedReader

CHUNK = 1 << 20
ROOM = "remove what the device can do without:   df -h ~; du -xh ~ | sort -h | tail"


class Refused(Exception):
    """what, why, fix"""


class Host:
    """The other end of the connection; EOFError when it has gone, or is silent: a pulled cable says nothing."""

    def __init__(self, silence: int = 60) -> None:
        self._in, self._out = cast("BufferedReader", sys.stdin.buffer), sys.stdout.buffer
        self.silence = silence
        for number in (signal.SIGALRM, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, _gone)

    def order(self) -> dict[str, Any]:
        while True:
            signal.alarm(self.silence)
            line = self._in.readline()
            if not line:
                raise EOFError
            if line.strip():
                return dict(json.loads(line))

    def answer(self, **content: Any) -> None:
        self.send(io.BytesIO(json.dumps(content).encode() + b"\n"))

    def send(self, file: IO[bytes]) -> None:
        """Each piece that is taken is a sign of life."""
        for chunk in iter(lambda: file.read(CHUNK), b""):
            signal.alarm(self.silence)
            self._out.write(chunk)
        self._out.flush()

    def receive(self, order: dict[str, Any], path: Path, temporary_folder: Path) -> None:
        """The whole file or none; a part of it is never under its name."""
        chunks, digest = self._chunks(order["bytes"]), hashlib.sha256()
        handle, name = tempfile.mkstemp(prefix="part-", dir=str(temporary_folder))
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != order["sha256"]:
                raise Refused(f"file {path.name}", "it arrived with other bytes than it was sent with", "")
            temporary.replace(path)
        except OSError:
            for _ in chunks:  # the next order comes after the last of them
                pass
            raise
        finally:
            if temporary.exists():
                temporary.unlink()
        self.answer()

    def _chunks(self, size: int) -> Iterator[bytes]:
        while size:
            signal.alarm(self.silence)
            chunk = self._in.read1(min(size, CHUNK))
            if not chunk:
                raise EOFError
            size -= len(chunk)
            yield chunk

    def wait(self, seconds: float | None, *others: IO[bytes]) -> bool:
        """Whether one of `others` can be read within the time; the host has nothing to say meanwhile but that it is."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._in, *others], [], [], left)
            if self._in in ready:
                signal.alarm(self.silence)
                if not self._in.read1(CHUNK):
                    raise EOFError
            if ready != [self._in]:
                return bool(ready)


def _gone(*_: object) -> None:
    raise EOFError


def cache_folder() -> Path:
    """kdedge's, found as on the host."""
    chosen = os.environ.get("KDEDGE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdedge"


def refusal(error: OSError) -> list[str]:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ["the device's disk is full", str(error.strerror), ROOM]
    return ["the device's folder for kdedge cannot be used", str(error), ""]


def fetch_agent(host: Host) -> Path:
    """The agent's zip, sent by the host unless it is here already."""
    order = host.order()
    host.silence = order["silence"]
    cache, wanted = cache_folder(), order["agent"]
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    agent = cache / f"agent-{wanted}.pyz"
    known = agent.is_file() and hashlib.sha256(agent.read_bytes()).hexdigest() == wanted
    host.answer(kdedge="here", agent=known)
    if known:
        os.utime(str(agent))
    else:
        host.receive(host.order(), agent, cache)
    return agent


def main() -> None:
    host = Host()
    try:
        agent = fetch_agent(host)
    except EOFError:
        return
    except Refused as error:
        host.answer(kdedge="here", error=error.args)
        return
    except OSError as error:
        host.answer(kdedge="here", error=refusal(error))
        return
    sys.path.insert(0, str(agent))
    from kdedge.profile.supervisor import serve

    serve(agent, host.silence)


if __name__ == "__main__":
    main()
