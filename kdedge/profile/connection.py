"""A device's supervisor at the other end of one ssh process, started there without any file of kdedge.

The user's SSH configuration, keys and agent apply.  Only hosts whose key is known are talked to.
"""

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader, RawIOBase
from itertools import chain
from pathlib import Path
from typing import Any, cast

from kdedge.core.errors import KdedgeError, MissingTool
from kdedge.engine.sidecar import atomic, sha256_file
from kdedge.profile.address import Address
from kdedge.profile.closure import agent_sha256, agent_zip
from kdedge.profile.ssh_failures import explain

GREETING = b'{"kdedge": "here"'
BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
CHUNK = 1 << 20
BEAT, SILENCE = 10.0, 60
"""Seconds between signs of life, and without one after which the device takes this end for dead."""
START, GOODBYE = 60.0, 10.0
OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "ControlMaster": "no",  # one that is open is used; a new one would outlive this process
    "LogLevel": "ERROR",
}
PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(15, 7, -1)))
# Within single quotes for the user's login shell on the device, whichever it is.
FIND = (
    'for p in "$@"; do "$p" -c "import sys; sys.exit(sys.version_info < (3, 8))" 2>/dev/null && '
    'exec "$p" -I -c "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"; done; exit 127'
)


class Connection:
    """One run on a device; what it started and wrote over there ends with it, whichever way it ends."""

    def __init__(self, address: Address, command: Sequence[str]) -> None:
        self.address, self._begun = address, False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the rest
        self._ssh = self._start(command)
        assert self._ssh.stdin is not None
        assert self._ssh.stdout is not None
        self._in, self._out = self._ssh.stdin.fileno(), BufferedReader(cast("RawIOBase", self._ssh.stdout))
        self._writing, self._closed = threading.Lock(), threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        options = [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]
        pythons = [self.address.python] if self.address.python else PYTHONS
        remote = " ".join(["exec sh -c", f"'{FIND}'", "sh", *pythons])
        try:
            return subprocess.Popen(
                [*command, "-T", "-x", *options, *self.address.arguments, remote],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,  # nothing is left to be written when it is closed
                start_new_session=True,  # Ctrl-C is for this process, which then says goodbye
            )
        except FileNotFoundError:
            self._stderr.close()
            fix = "sudo apt-get install openssh-client"
            raise MissingTool(f"{command[0]} is not installed", "a target ssh://... needs it", fix) from None

    def _open(self) -> None:
        """Start the supervisor, and send it the agent unless it has this one."""
        source, agent, sha256 = BOOTSTRAP.read_bytes(), agent_zip(), agent_sha256()
        with self._within(START):
            self._write([b"%d\n" % len(source), source])
            self._send({"do": "open", "agent": sha256, "silence": SILENCE})
            if not self._answer()["agent"]:
                self._send({"do": "agent", "bytes": len(agent), "sha256": sha256}, [agent])
                self._answer()

    def ask(self, order: dict[str, Any], limit: float) -> dict[str, Any]:
        """The answer to an order, which has to come within `limit` seconds."""
        with self._within(limit):
            self._send(order)
            return self._answer()

    def put(self, name: str, file: Path, sha256: str) -> None:
        with file.open("rb") as opened:
            chunks = iter(lambda: opened.read(CHUNK), b"")
            self._send({"do": "put", "name": name, "bytes": file.stat().st_size, "sha256": sha256}, chunks)
        self._answer()

    def copy(self, name: str, known: str) -> None:
        """As `put`, of what is over there already under another name."""
        self._send({"do": "copy", "name": name, "from": known})
        self._answer()

    def get(self, name: str, file: Path) -> str:
        """A file of the run's folder and its hash; whole, or `file` stays as it is."""
        self._send({"do": "get", "name": name})
        answer = self._answer()
        with atomic(file) as temporary:
            with temporary.open("wb") as written:
                for chunk in self._chunks(answer["bytes"]):
                    written.write(chunk)
            if sha256_file(temporary) != answer["sha256"]:
                raise KdedgeError(f"file {file.name} from {self.address.host}", "it arrived with other bytes than sent")
        return str(answer["sha256"])

    @property
    def lost(self) -> bool:
        return self._ssh.poll() is not None

    def close(self) -> None:
        """Returns when nothing is left over there, or cannot be waited for: then it is gone within a minute."""
        self._closed.set()
        self._heart.join()
        assert self._ssh.stdin is not None
        self._ssh.stdin.close()
        try:
            self._ssh.wait(GOODBYE)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        self._out.close()
        self._stderr.close()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT):
            if self._writing.acquire(blocking=False):  # else what is being written is a sign of life itself
                try:
                    os.write(self._in, b"\n")
                except OSError:  # whoever waits for an answer will see it
                    return
                finally:
                    self._writing.release()

    def _send(self, order: dict[str, Any], chunks: Iterable[bytes] = ()) -> None:
        self._write(chain([json.dumps(order).encode() + b"\n"], chunks))

    def _write(self, chunks: Iterable[bytes]) -> None:
        with self._writing, suppress(BrokenPipeError):  # why it broke is said where the answer should be
            for chunk in chunks:
                left = memoryview(chunk)
                while left:
                    left = left[os.write(self._in, left) :]

    def _answer(self) -> dict[str, Any]:
        """Raises what the device could not do, or that the connection ended."""
        while True:
            line = self._out.readline()
            if not line.endswith(b"\n"):
                raise self._lost()
            if not self._begun:  # a login shell may print what it likes before
                line = line[line.find(GREETING) :] if GREETING in line else b""
            if line:
                break
        self._begun = True
        answer: dict[str, Any] = json.loads(line)
        if error := answer.get("error"):
            raise KdedgeError(*error)
        return answer

    def _chunks(self, size: int) -> Iterator[bytes]:
        while size:
            chunk = self._out.read1(min(size, CHUNK))
            if not chunk:
                raise self._lost()
            size -= len(chunk)
            yield chunk

    def _lost(self) -> KdedgeError:
        status = self._ssh.wait()
        self._stderr.seek(0)
        return explain(self.address, status, self._stderr.read().decode("utf-8", "replace"), self._begun)

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        late = threading.Event()

        def end() -> None:
            late.set()
            self._ssh.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except KdedgeError:
            if late.is_set():
                raise KdedgeError(f"device {self.address.host}", f"no reply within {seconds:g} s") from None
            raise
        finally:
            timer.cancel()
            timer.join()
