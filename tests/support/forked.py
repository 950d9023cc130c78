"""kdedge commands in processes of their own that start at once: forked from one that has imported everything.

A process can be halted at a chosen call, so that "killed in the middle of an epoch" needs no clock.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PRELOAD = [
    "forked",
    "kdedge.cli",
    "kdedge.pipeline.distill",
    "kdedge.pipeline.whole",
    "kdedge.pipeline.export",
    "kdedge.pipeline.report",
    "lightning_fabric.strategies.launchers.multiprocessing",
    "sklearn.datasets",
    "torch.utils.tensorboard",
    "torch.distributed",
]
SECONDS = 120
"""After which a process is taken for hung."""


@dataclass(frozen=True)
class Halt:
    """What happens when `call` is entered for the nth time: the process gets a signal, or (None) waits to be told."""

    call: str
    """module:attribute.path"""
    nth: int
    signal: int | None = signal.SIGKILL


class Process:
    """One `kdedge ARGUMENTS...` in a folder."""

    def __init__(self, server: Any, arguments: Sequence[str], folder: Path, halt: Halt | None, setup: str) -> None:
        self.log = folder / f"{len(list(folder.glob('*.stdout')))}"
        self.told, theirs = server.Pipe()
        self.process = server.Process(target=work, args=(arguments, folder, str(self.log), halt, theirs, setup))
        self.process.start()
        theirs.close()

    @property
    def stdout(self) -> str:
        return Path(f"{self.log}.stdout").read_text()

    @property
    def stderr(self) -> str:
        return Path(f"{self.log}.stderr").read_text()

    def wait_for_halt(self) -> None:
        if not self.told.poll(SECONDS) or self.told.recv() != "halted":
            raise TimeoutError(self.stderr)

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> int:
        """The exit code, negative for a signal."""
        self.process.join(SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"still running after {SECONDS} s\n{self.stdout}\n{self.stderr}")
        return int(self.process.exitcode)


class Forkserver:
    """Where processes come from; the server itself starts with the first of them."""

    def __init__(self) -> None:
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)

    def start(self, arguments: Sequence[str], folder: Path, halt: Halt | None = None, setup: str = "") -> Process:
        """`setup`: Python that the process runs first, such as a method that only a test has."""
        return Process(self.context, arguments, folder, halt, setup)

    def run(
        self, arguments: Sequence[str], folder: Path, halt: Halt | None = None, setup: str = ""
    ) -> tuple[int, Process]:
        process = self.start(arguments, folder, halt, setup)
        return process.end(), process


def work(arguments: Sequence[str], folder: Path, log: str, halt: Halt | None, told: Connection, setup: str) -> None:
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{log}.{name}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    exec(setup, {})
    if halt:
        arm(halt, told)
    from kdedge.cli import main

    sys.argv = ["kdedge", *arguments]
    main()


def arm(halt: Halt, told: Connection) -> None:
    """Put a counter in front of the call."""
    module, _, path = halt.call.partition(":")
    *holders, name = path.split(".")
    holder: Any = reduce(getattr, holders, importlib.import_module(module))
    original: Callable[..., Any] = getattr(holder, name)
    calls = iter(range(1, sys.maxsize))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == halt.nth:
            if halt.signal is None:
                told.send("halted")
                told.recv()
            else:
                os.kill(os.getpid(), halt.signal)
        return original(*args, **kwargs)

    setattr(holder, name, counted)
