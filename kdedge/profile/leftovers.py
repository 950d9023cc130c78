"""Nothing stays behind on a device: a process that cleans up after this one, and what earlier crashes left.

Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

MINUTE, MONTH = 60.0, 30 * 86400.0
LOCK = "lock"


def lock(file: IO[Any]) -> bool:
    """Whether this process could take the file's lock; its end gives the lock back."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sweep(cache: Path) -> None:
    """Remove what crashed runs have left, and agents that have not been used for a month."""
    for folder in cache.glob("run-*"):
        if age(folder) > MINUTE and abandoned(folder):  # a minute: one that is just made has no lock yet
            shutil.rmtree(str(folder), ignore_errors=True)
    files = [(path, MINUTE) for path in cache.glob("part-*")] + [(path, MONTH) for path in cache.glob("agent-*.pyz")]
    for path, limit in files:
        if age(path) > limit:
            with suppress(FileNotFoundError):  # another run sweeps, too
                path.unlink()


def age(path: Path) -> float:
    """Seconds since it was written or, where the clock has been set back, until then; 0 when it has just gone."""
    try:
        return abs(time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def abandoned(folder: Path) -> bool:
    """Whether nobody holds the lock in it."""
    try:
        with (folder / LOCK).open() as file:
            return lock(file)
    except FileNotFoundError:
        return True


def watch_over(folder: Path) -> None:
    """Leave a process that, once this one has ended in any way, kills all that it started and removes the folder.

    It keeps stdout open, so that whoever waits for the connection to end waits for that, too.  What is to be killed
    must be in this process's group.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    group = os.getpgrp()
    ended, alive = os.pipe()  # `alive` is closed by the end of this process, as no other program inherits it
    if os.fork():
        os.close(ended)
        return
    try:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        os.close(0)
        os.close(alive)
        os.read(ended, 1)
        clean_up(group, folder)
    finally:
        os._exit(0)


def clean_up(group: int, folder: Path) -> None:
    with suppress(ProcessLookupError):  # it started nothing, or all of it has ended
        os.killpg(group, signal.SIGKILL)
    for _ in range(100):  # what was killed may write until it is dead
        shutil.rmtree(str(folder), ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)
