"""What holds a device for one host: takes files, runs agents in processes of their own, and ends with the connection.

Orders and answers as in bootstrap.py, which starts it:

    {"do": "put", "name": "in-0/m.onnx", "bytes": N, "sha256": SHA256}                  {}
    {"do": "copy", "name": "in-1/m.engine", "from": "out-1/m.engine"}                   {}
    {"do": "run", "request": {...}, "alone": true, "wait": 0, "out": ["out-1"]}
                                              {"status": 0, "stdout": "{...}", "stderr": "", "made": ["out-1/y.npz"]}
    {"do": "get", "name": "out-1/y.npz"}                                                {"bytes": N, "sha256": SHA256}

Names are relative to the run's own folder, in which agents run.
Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdedge.engine.sidecar import sha256_file
from kdedge.profile.bootstrap import CHUNK, Host, Refused, cache_folder, refusal
from kdedge.profile.leftovers import LOCK, lock, sweep, watch_over

GRACE = 5.0
"""Seconds that an agent has to set back what it changed, before it is killed."""
LAST_WORDS = 4000
"""Bytes of an agent's stderr that are passed on."""


class Supervisor:
    def __init__(self, host: Host, agent: Path) -> None:
        self.host, self.agent = host, agent
        cache = cache_folder()
        sweep(cache)
        # Both are open before the watch begins, which so holds these locks until the last agent is dead.
        self._turn = (cache / LOCK).open("a+")
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=str(cache)))
        self._mine = (self.folder / LOCK).open("w")
        lock(self._mine)
        watch_over(self.folder)
        self._has_turn = False
        self.orders = {"put": self.put, "copy": self.copy, "run": self.run, "get": self.get}

    def put(self, order: dict[str, Any]) -> None:
        path = self.inside(order["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        self.host.receive(order, path, self.folder)

    def copy(self, order: dict[str, Any]) -> None:
        path = self.inside(order["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(self.inside(order["from"])), str(path))
        self.host.answer()

    def run(self, order: dict[str, Any]) -> None:
        if order["alone"]:
            self._take_turn(order["wait"])
        folders = [self.inside(name) for name in order["out"]]
        for folder in folders:
            folder.mkdir()
        status, stdout, stderr = self._run_agent(order["request"])
        made = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(self.folder).as_posix() for path in made]
        self.host.answer(status=status, stdout=stdout, stderr=stderr, made=names)

    def get(self, order: dict[str, Any]) -> None:
        path = self.inside(order["name"])
        with path.open("rb") as file:
            self.host.answer(bytes=path.stat().st_size, sha256=sha256_file(path))
            self.host.send(file)

    def inside(self, name: str) -> Path:
        path = self.folder / name
        if Path(name).is_absolute() or ".." in path.parts:
            raise Refused(f"file {name}", "it is not inside the folder of its run", "")
        return path

    def _run_agent(self, request: dict[str, Any]) -> tuple[int, str, str]:
        """Exit status, stdout and the end of stderr."""
        chunks = []
        with tempfile.TemporaryFile(dir=str(self.folder)) as stderr:
            agent = subprocess.Popen(
                [sys.executable, str(self.agent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=str(self.folder),
            )  # no `with`: when the host goes away, that would wait for the agent
            assert agent.stdin is not None
            assert agent.stdout is not None
            with suppress(BrokenPipeError), agent.stdin:  # of an agent that has ended already
                agent.stdin.write(json.dumps(request).encode())
            try:
                chunk = b"-"
                while chunk:
                    self.host.wait(None, agent.stdout)
                    chunk = os.read(agent.stdout.fileno(), CHUNK)
                    chunks.append(chunk)
            except EOFError:
                agent.terminate()
                with suppress(subprocess.TimeoutExpired):
                    agent.wait(GRACE)
                raise
            status = agent.wait()
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - LAST_WORDS))
            said = stderr.read()
        return status, b"".join(chunks).decode("utf-8", "replace"), said.decode("utf-8", "replace")

    def _take_turn(self, seconds: float) -> None:
        """Hold the device until the end of this process, so that nobody else measures meanwhile."""
        if self._has_turn:
            return
        deadline = time.monotonic() + seconds
        while not lock(self._turn):
            if time.monotonic() >= deadline:
                raise Refused("the device is in use", self._whose_turn(), "try again when that run has ended")
            self.host.wait(0.2)
        self._has_turn = True
        self._turn.truncate(0)
        self._turn.write(f"{os.getpid()} {int(time.monotonic())}")
        self._turn.flush()

    def _whose_turn(self) -> str:
        self._turn.seek(0)
        process, _, since = self._turn.read().partition(" ")
        seconds = int(time.monotonic()) - int(since or 0)  # since the device started: its clock may be wrong
        return f"another run of kdedge has held it for {seconds} s (process {process} there)"


def serve(agent: Path, silence: int) -> None:
    """Do as the host says until it has gone."""
    host, supervisor = Host(silence), None
    while True:
        try:
            order = host.order()
            supervisor = supervisor or Supervisor(host, agent)
            supervisor.orders[order["do"]](order)
        except Refused as error:
            host.answer(error=error.args)
        except (EOFError, BrokenPipeError):
            return
        except OSError as error:
            host.answer(error=refusal(error))
