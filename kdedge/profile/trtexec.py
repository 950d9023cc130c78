"""Builds and times engines with trtexec: for boards without TensorRT's Python package, and as a clock on the device.

What trtexec prints is kept as evidence; numbers come from the files it exports.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from kdedge.core.errors import KdedgeError, MissingTool, ModelError
from kdedge.engine.sidecar import atomic
from kdedge.engine.trt_layers import Layer
from kdedge.profile.trtexec_failures import REBUILD, Failure
from kdedge.profile.trtexec_json import Times, read_layer_times, read_layers, read_outputs, read_times, summarize
from kdedge.profile.trtexec_log import Log, read_log
from kdedge.profile.trtexec_numbers import LayerTime
from kdedge.profile.trtexec_options import (
    END_TO_END,
    PROFILE,
    Build,
    Load,
    Program,
    answer_command,
    build_command,
    profile_command,
    time_command,
)

if TYPE_CHECKING:
    import numpy as np

    from kdedge.engine.base import Arrays

HOUR, QUARTER = 3600.0, 900.0
MIB = 1 << 20
STARTING = b"Starting inference"
PARENT_DEATH_SIGNAL = 1  # of prctl
OF_THE_MODEL = {"other_gpu", "other_version", "not_an_engine", "damaged", "deserialize", "parser", "build", "engine"}
SERIAL = re.compile(r"GPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
SWITCHED = {True: "Enabled", False: "Disabled"}


def build_engine(
    program: Program, onnx: Path, engine: Path, build: Build, evidence: Path | None = None, limit_s: float = HOUR
) -> tuple[Log, list[Layer]]:
    """Write the engine of an ONNX file, whole or not at all, and tell its layers.

    Raises:
        ModelError: TensorRT does not take the model.
        KdedgeError: it does not end in time, or says that it passed but leaves no whole engine.
    """
    with atomic(engine) as temporary:
        exported = temporary.with_name("layers.json")
        command = build_command(program, onnx, temporary, exported, build)
        log = run_trtexec(command, "build", f"the engine of {onnx}", evidence, limit_s)
        size = temporary.stat().st_size if temporary.is_file() else 0
        if size + MIB * 1e-5 < log.numbers.get("engine_mib", 0.0) * MIB * (1 - 1e-5) or not size:
            said = "{engine_mib} MiB".format(**log.numbers) if "engine_mib" in log.numbers else "PASSED"
            raise KdedgeError(
                f"the engine of {onnx}", f"trtexec says {said}, but wrote {size} bytes", "df -h .   (is there room?)"
            )
        layers = read_layers(_text(exported))
    return log, layers


def time_engine(
    program: Program,
    engine: Path,
    load: Load,
    evidence: Path | None = None,
    limit_s: float = QUARTER,
    on_start: Callable[[], object] | None = None,
) -> tuple[Log, Times]:
    """The times of every query of one run.

    Args:
        on_start: called, by another thread, when the first query is about to begin.

    Raises:
        ModelError: the engine is not for this machine.
        KdedgeError: it does not end in time, or what it exported is not what it was asked for and says it measured.
    """
    load = load.settled()
    with tempfile.TemporaryDirectory(prefix="kdedge-trtexec-") as folder:
        exported = Path(folder) / "times.json"
        command = time_command(program, engine, exported, load)
        log = run_trtexec(command, "time", f"the times of {engine}", evidence, limit_s, engine, on_start)
        times = read_times(_text(exported), load.warmup_ms)
    for line, wanted in expected_settings(load).items():
        if log.settings.get(line, wanted) != wanted:
            raise KdedgeError(f"the times of {engine}", f"trtexec ran with {line}: {log.settings[line]}, not {wanted}")
    said = log.numbers.get("queries"), log.metrics["compute"].get("median")
    median = summarize(times.compute_ms)["median"]
    if said[0] not in (None, len(times.compute_ms)) or (said[1] is not None and abs(said[1] - median) > 1e-4 * median):
        raise KdedgeError(
            f"the times of {engine}",
            f"{len(times.compute_ms)} exported queries, median {median:g} ms, are not those of its summary: "
            f"{said[0]}, median {said[1]} ms",
        )
    return log, times


def ask_engine(
    program: Program, engine: Path, feeds: Arrays, load: Load, limit_s: float = QUARTER
) -> dict[str, np.ndarray[Any, Any]]:
    """What the engine answers, as numbers of six digits: trtexec writes them so.

    Raises:
        ModelError: the engine is not for this machine.
        KdedgeError: it does not end in time, or exports no answer.
    """
    with tempfile.TemporaryDirectory(prefix="kdedge-trtexec-") as folder:
        files, answer = {}, Path(folder) / "outputs.json"
        for number, (name, array) in enumerate(feeds.items()):
            files[name] = Path(folder) / f"{number}.bin"
            array.tofile(str(files[name]))
        load = replace(load, switches=END_TO_END, seconds=0, queries=1, warmup_ms=0)
        command = answer_command(program, engine, files, answer, load)
        run_trtexec(command, "time", f"the answer of {engine}", None, limit_s, engine)
        return read_outputs(_text(answer))


def profile_layers(
    program: Program, engine: Path, load: Load, evidence: Path | None = None, limit_s: float = QUARTER
) -> tuple[Log, list[LayerTime], list[Layer]]:
    """Times of the layers, in a run of its own since they slow each query, and what the layers are.

    Raises:
        ModelError: the engine is not for this machine.
        KdedgeError: it does not end in time, or exports no layers.
    """
    load = replace(load, switches=PROFILE)
    with tempfile.TemporaryDirectory(prefix="kdedge-trtexec-") as folder:
        times, layers = Path(folder) / "profile.json", Path(folder) / "layers.json"
        command = profile_command(program, engine, times, layers, load)
        log = run_trtexec(command, "profile", f"the layers of {engine}", evidence, limit_s, engine)
        return log, read_layer_times(_text(times)), read_layers(_text(layers))


def expected_settings(load: Load) -> dict[str, str]:
    """The lines with which trtexec repeats its switches."""
    return {
        "Data transfers": SWITCHED[load.switches.transfers],
        "Spin-wait": SWITCHED[load.switches.spin],
        "CUDA Graph": SWITCHED[load.switches.graph],
        "ExposeDMA": SWITCHED[load.switches.one_at_a_time],
    }


def _text(exported: Path) -> str:
    try:
        return exported.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise KdedgeError("trtexec says that it passed, but exported no file", str(error)) from None


def run_trtexec(
    command: list[str],
    mode: str,
    what: str,
    evidence: Path | None,
    limit_s: float,
    engine: Path | None = None,
    on_start: Callable[[], object] | None = None,
) -> Log:
    """Run it for `what`; raises what its text and its end tell, unless it did what a run of this mode promises."""
    done = _run(command, evidence, limit_s, on_start)
    if done.late:
        raise KdedgeError(f"{what}: trtexec has not ended after {limit_s:g} s", f"its last words: {done.last_words}")
    log = read_log(done.text)
    objection = log.objection(mode)
    if not objection and done.status == 0:
        return log
    cause = next(iter(log.failures), None)
    raise _error(cause)(what, _why(objection, done.status, cause, engine), cause.fix if cause else "")


class Ended(NamedTuple):
    text: str
    status: int
    late: bool

    @property
    def last_words(self) -> str:
        return ([line for line in self.text.splitlines() if line.strip()] or ["none"])[-1][:200]


def _run(command: list[str], evidence: Path | None, limit_s: float, on_start: Callable[[], object] | None) -> Ended:
    late = False
    lines: list[bytes] = []
    with _terminable():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        listener = threading.Thread(target=_listen, args=(process.stdout, lines, on_start), daemon=True)
        listener.start()
        try:
            process.wait(limit_s)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            late = isinstance(error, subprocess.TimeoutExpired)
            if not late:
                raise
        finally:
            listener.join()
            text = redact(b"".join(lines).decode("utf-8", "replace"))
            if evidence is not None:
                with atomic(evidence) as temporary:
                    temporary.write_text(text, encoding="utf-8")
    return Ended(text, process.returncode, late)


def _listen(stream: IO[bytes], lines: list[bytes], on_start: Callable[[], object] | None) -> None:
    with stream:
        for line in stream:
            lines.append(line)
            if on_start is not None and STARTING in line:
                on_start()


def _die_with_parent() -> None:
    """The program is in a group of its own, so that whoever kills this process's group would miss it."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like an interruption, so that nothing is left behind."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def redact(text: str) -> str:
    """Without the GPU's serial number and the user's name."""
    home = str(Path.home())
    text = SERIAL.sub("GPU-(serial)", text)
    return text if home == "/" else text.replace(home, "~")


def _error(cause: Failure | None) -> type[KdedgeError]:
    if cause is None:
        return KdedgeError
    return ModelError if cause.kind in OF_THE_MODEL else MissingTool if cause.kind == "option" else KdedgeError


def _why(objection: str, status: int, cause: Failure | None, engine: Path | None) -> str:
    if cause is not None and cause.kind in ("not_an_engine", "deserialize") and engine is not None and _headed(engine):
        return f"it begins with a JSON header, as ultralytics writes; TensorRT takes the bytes behind it ({REBUILD})"
    if status == -signal.SIGKILL:
        return "trtexec was killed: most likely out of memory"
    ending = "" if status >= 0 else f", and ended with {signal.Signals(-status).name}"
    return (objection or f"trtexec ended with status {status} in spite of PASSED") + ending


def _headed(engine: Path) -> bool:
    """Whether a length and a JSON object stand in front of the engine's own bytes."""
    try:
        with engine.open("rb") as file:
            start = file.read(5)
    except OSError:
        return False
    return start[4:] == b"{" and int.from_bytes(start[:4], "little") < engine.stat().st_size
