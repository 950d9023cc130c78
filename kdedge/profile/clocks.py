"""Clocks pinned and the power mode changed while a block runs, and put back when it ends, fails or is told to stop.

Only what was asked for is changed, and only by root: kdedge never calls sudo.
A power mode that wants a reboot is refused before anything has changed.
Part of the device closure: Python 3.8, standard library only.  `root` stands for `/`, so that tests bring their own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from kdedge.core.errors import KdedgeError, MissingTool, Unstable, nearest
from kdedge.engine.machine import ROOT, read
from kdedge.profile.jetson import PowerMode, power_mode, power_modes
from kdedge.profile.sysfs import clocks_pinned

SECONDS = 60
"""After which a tool is taken for hung."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP is what a broken SSH connection sends."""


@contextmanager
def controlled(lock: bool = False, mode: str | None = None, root: Path = ROOT) -> Iterator[None]:
    """Set the power mode by name, then pin the clocks to the highest that it allows; undone in reverse.

    Raises:
        MissingTool: this machine has no tool for it.
        KdedgeError: not root, no such mode, one that wants a reboot, or a tool failed.
        Unstable: the tool says that all went well, but it did not.
    """
    with ExitStack() as stack:
        if lock or mode:
            stack.enter_context(stopping())
        if mode:
            stack.enter_context(powered(mode, root))
        if lock:
            stack.enter_context(locked(root))
        yield


@contextmanager
def stopping() -> Iterator[None]:
    """Signals that would end this process at once end the block instead, so that everything is put back.

    Signals that are ignored, or that someone else handles, stay so.  Works in the main thread; others get no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    ours = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    try:
        for number in ours:
            signal.signal(number, _stop)
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _stop(number: int, _: FrameType | None) -> None:
    """The first one counts: a second must not interrupt what puts things back."""
    for other in STOPS:
        if signal.getsignal(other) is _stop:
            signal.signal(other, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait until the block is done: a state half set, or half put back, helps nobody."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(command: list[str]) -> str:
    """What a tool prints.  Out of reach of the terminal's Ctrl-C; a question that it asks gets no answer.

    Raises:
        KdedgeError: it failed.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise KdedgeError(" ".join(command), f"not done after {SECONDS} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise KdedgeError(" ".join(command), f"status {done.returncode}: {said[-1]}")
    return done.stdout


def needs_root(option: str, why: str, line: str) -> None:
    if os.geteuid() != 0:
        raise KdedgeError(option, f"{why} needs root, and kdedge does not call sudo", line)


@contextmanager
def powered(name: str, root: Path = ROOT) -> Iterator[None]:
    """Run in a power mode of nvpmodel; nothing is done where it is set already."""
    option = f"--power-mode {name}"
    tool = shutil.which("nvpmodel")
    if not tool:
        raise MissingTool(option, "this machine has no nvpmodel; power modes are a Jetson's", f"without {option}")
    modes = power_modes(read(root / "etc/nvpmodel.conf"))
    wanted = next((mode for mode in modes if mode.name == name), None)
    if not wanted:
        raise KdedgeError(option, f"/etc/nvpmodel.conf has no such mode, {nearest(name, (m.name for m in modes))}")
    current = _current(tool, option)
    if current.name == wanted.name:
        yield
        return
    _refuse_reboot(option, modes, current, wanted)
    needs_root(option, "nvpmodel", f"sudo nvpmodel -m {wanted.number}   (then without {option})")
    try:
        with undisturbed():
            _set_mode(tool, option, wanted)
        yield
    finally:
        with undisturbed():
            _set_mode(tool, f"putting back power mode {current.name}", current)


def _current(tool: str, option: str) -> PowerMode:
    mode = power_mode(run([tool, "-q"]))
    if not mode:
        raise KdedgeError(option, "nvpmodel -q does not say which mode is set", "sudo nvpmodel -q --verbose")
    return mode


def _refuse_reboot(option: str, modes: dict[PowerMode, dict[str, str]], current: PowerMode, wanted: PowerMode) -> None:
    """Other cores, and other parts of the GPU that have power, are set while the board starts."""
    fix = f"sudo nvpmodel -m {wanted.number}   (answer YES: the board starts anew)"
    if current not in modes:
        raise KdedgeError(option, f"the mode that is set, {current.name}, is not in /etc/nvpmodel.conf", fix)
    before, after = modes[current], modes[wanted]
    for setting in sorted(before.keys() | after.keys()):
        unit, values = setting.split()[0], (before.get(setting), after.get(setting))
        if (unit == "CPU_ONLINE" or unit.endswith("POWER_GATING")) and values[0] != values[1]:
            change = f"{setting}: {values[0] or 'unset'} -> {values[1] or 'unset'}"
            raise KdedgeError(option, f"from {current.name} it wants a reboot ({change})", fix)


def _set_mode(tool: str, what: str, mode: PowerMode) -> None:
    """nvpmodel may fail and say nothing, so it is asked what it did."""
    fix = f"sudo nvpmodel -m {mode.number}"
    try:
        run([tool, "-m", str(mode.number)])
    except KdedgeError as error:
        raise KdedgeError(what, f"{error.what}: {error.why}", fix) from error
    now = _current(tool, what)
    if now != mode:
        raise Unstable(what, f"nvpmodel went well, but the mode is {now.name}", fix)


@contextmanager
def locked(root: Path = ROOT) -> Iterator[None]:
    """Pin the clocks with jetson_clocks on a Jetson, with nvidia-smi on a discrete GPU.

    jetson_clocks stores what was set before and puts that back; nvidia-smi can only go back to clocks that are free.
    """
    jetson_clocks, nvidia_smi = shutil.which("jetson_clocks"), shutil.which("nvidia-smi")
    if jetson_clocks:
        with _jetson_locked(jetson_clocks, root):
            yield
    elif nvidia_smi:
        with _gpu_locked(nvidia_smi):
            yield
    else:
        why = "this machine has neither jetson_clocks nor nvidia-smi"
        raise MissingTool("--lock-clocks", why, "without --lock-clocks")


@contextmanager
def _jetson_locked(tool: str, root: Path) -> Iterator[None]:
    """The folder of what was stored stays where it is when that could not be put back."""
    needs_root("--lock-clocks", "jetson_clocks", "sudo jetson_clocks   (then without --lock-clocks)")
    stored = Path(tempfile.mkdtemp(prefix="kdedge-clocks-")) / "stored.conf"  # a file that is there makes it ask
    try:
        run([tool, "--store", str(stored)])
    except BaseException:
        shutil.rmtree(stored.parent)
        raise
    try:
        with undisturbed():
            run([tool])
        if clocks_pinned(root) is False:
            raise Unstable("--lock-clocks", "jetson_clocks went well, but CPU or GPU clocks are not pinned")
        yield
    finally:
        with undisturbed():
            _undo([tool, "--restore", str(stored)])
            shutil.rmtree(stored.parent)


@contextmanager
def _gpu_locked(tool: str) -> Iterator[None]:
    needs_root("--lock-clocks", "nvidia-smi -lgc", "sudo nvidia-smi -lgc MIN,MAX   (then without --lock-clocks)")
    gpu = [tool, "-i", os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"]
    highest = run([*gpu, "--query-gpu=clocks.max.graphics", "--format=csv,noheader,nounits"]).strip()
    if not highest.isdigit():
        raise KdedgeError("--lock-clocks", f"nvidia-smi does not say how fast this GPU may be, but {highest!r}")
    try:
        with undisturbed():
            run([*gpu, "-lgc", f"{highest},{highest}"])
        yield
    finally:
        with undisturbed():
            _undo([*gpu, "-rgc"])


def _undo(command: list[str]) -> None:
    try:
        run(command)
    except KdedgeError as error:
        line = " ".join(["sudo", Path(command[0]).name, *command[1:]])
        raise KdedgeError("clocks could not be put back", error.why, line) from error
