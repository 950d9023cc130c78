"""What runs on the device, in a fresh process: one JSON request on stdin, one JSON reply on stdout.

    {"mode": "device",  "backend": "ort"}
    {"mode": "build",   "backend": "ort", "onnx": "m.onnx", "out": "m.engine.onnx", "options": {}}
    {"mode": "latency", "backend": "ort", "model": "m.onnx", "options": {}, "shapes": {}, "batch": 1, "seed": 0,
                        "seconds": 1.0, "warmup_cap": 2.0}
    {"mode": "energy",  the same with "repeats"; "seconds" is of each}
    {"mode": "predict", "backend": "ort", "model": "m.onnx", "options": {}, "batch": 64,
                        "arrays": "in.npz", "outputs": "out.npz"}
    {"mode": "cascade", "backend": "ort", "model": "cascade.fp32.json", "options": {}, "threshold": 0.9,
                        "arrays": "eval.npz", "images": 1000, "warmup_cap": 2.0}

What the user got wrong comes back as {"error": {"kind", "what", "why", "fix"}} with that error's exit code.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
import zipfile
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kdedge.core.errors import KdedgeError, MissingTool, ModelError

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays, Session

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MILLISECOND = 1_000_000


def respond(request: dict[str, Any]) -> dict[str, Any]:
    modes = {
        "device": device,
        "build": build,
        "latency": latency,
        "energy": energy,
        "predict": predict,
        "cascade": cascade,
    }
    mode = request.get("mode")
    if mode not in modes:
        raise KdedgeError(f"mode {mode!r} of the agent", "it has {}".format(", ".join(modes)))
    threads = request.get("options", {}).get("threads")
    if threads:  # numpy reads the variables when it is first imported, which is below
        os.environ.update({name: str(threads) for name in THREAD_VARIABLES})
    return modes[mode](request)


def device(request: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint of this machine."""
    from kdedge.engine.base import backend
    from kdedge.profile.board import fingerprint

    return {"device": fingerprint(backend(request["backend"]).versions())}


def build(request: dict[str, Any]) -> dict[str, Any]:
    """Build an engine for this machine, with its sidecar."""
    from kdedge.engine.base import backend

    engine = backend(request["backend"])
    precision = engine.build(Path(request["onnx"]), Path(request["out"]), request.get("options", {}))
    return {"precision_built": precision, **device(request)}


def latency(request: dict[str, Any]) -> dict[str, Any]:
    if request.get("energy"):  # which is measured next: better refused before minutes are spent than after
        from kdedge.profile.telemetry import power_source

        power_source().close()
    with held(request):
        return timed(request)


def timed(request: dict[str, Any]) -> dict[str, Any]:
    """Open the model, feed it random inputs and time it; memory is that of this process alone."""
    from kdedge.engine.base import backend
    from kdedge.profile.meter import measure, warm_up
    from kdedge.profile.throttle import evidence, state

    engine, path = backend(request["backend"]), Path(request["model"])
    settings = engine.settings(request.get("options", {}))
    reply = device(request)  # also imports the library, so that its size is in the baseline
    baseline, was_reset = resident("VmRSS"), reset_peak()
    begin = time.perf_counter_ns()
    with engine.open(path, settings) as session:
        opened, before = time.perf_counter_ns(), state()
        shapes, feeds = inputs(session, request)
        ready = time.perf_counter_ns()
        session.run(feeds)
        first = time.perf_counter_ns() - ready
        warm = warm_up(lambda: session.run(feeds), request["warmup_cap"])
        samples = measure(lambda: session.run(feeds), request["seconds"], warm.median_ns)
        peak, after = resident("VmHWM"), state()
        reply.update(
            shapes=shapes, provider=session.provider, precision_built=session.precision_built(), options=settings
        )
    reply["memory_method"] = "VmHWM of /proc/self/status, {}".format(
        "reset before the model was opened" if was_reset else "since the process began"
    )
    reply["sample"] = {
        "latency_ms": (samples / MILLISECOND).tolist(),
        "open_ms": (opened - begin) / MILLISECOND,
        "first_ms": first / MILLISECOND,
        "warmup_queries": warm.queries,
        "warmup_ms": warm.elapsed_ns / MILLISECOND,
        "settled": warm.settled,
        "baseline_bytes": baseline,
        "peak_bytes": peak,
    }
    reply["throttled"] = [found.text for found in evidence([before, after])]
    return reply


def held(request: dict[str, Any]) -> AbstractContextManager[None]:
    """Clocks and power mode as the request wants them, put back at the end."""
    from kdedge.profile.clocks import controlled

    return controlled(request.get("lock_clocks", False), request.get("power_mode"))


def inputs(session: Session, request: dict[str, Any]) -> tuple[dict[str, tuple[int, ...]], Arrays]:
    """Shapes as asked for, and random arrays of them."""
    from kdedge.engine.feeds import input_shapes, random_feeds

    asked = {name: tuple(shape) for name, shape in request.get("shapes", {}).items()}
    shapes = input_shapes(session.model, session.inputs, asked, request.get("batch", 1))
    return shapes, random_feeds(session.model, session.inputs, shapes, request.get("seed", 0))


def energy(request: dict[str, Any]) -> dict[str, Any]:
    """Open the model, and take power samples while it runs over and over."""
    from kdedge.engine.base import backend
    from kdedge.profile.energy import measure
    from kdedge.profile.meter import warm_up
    from kdedge.profile.telemetry import power_source

    engine = backend(request["backend"])
    settings = engine.settings(request.get("options", {}))
    with closing(power_source()) as source, held(request), engine.open(Path(request["model"]), settings) as session:
        _, feeds = inputs(session, request)
        warm_up(lambda: session.run(feeds), request["warmup_cap"])
        found = measure(lambda: session.run(feeds), source, request["repeats"], request["seconds"])
    return {"energy": asdict(found)}


def resident(field: str) -> int:
    """Bytes of resident memory now (VmRSS) or at most (VmHWM).

    Not getrusage's ru_maxrss: a process inherits that from the one that started it, however big that was.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KdedgeError("memory of this process", f"/proc/self/status has no {field}")


def reset_peak() -> bool:
    """Make the peak count from now on; False where the system does not let a process do so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def predict(request: dict[str, Any]) -> dict[str, Any]:
    """Run the arrays that are named after the model's inputs, a batch at a time, and write an array for each output.

    A cascade takes `images`; its outputs are the logits of every exit.
    """
    import numpy as np

    from kdedge.engine.base import backend
    from kdedge.engine.cascade import open_cascade
    from kdedge.engine.sidecar import atomic

    path, arrays, options = Path(request["model"]), Path(request["arrays"]), request.get("options", {})
    if path.suffix == ".json":
        with open_cascade(path, options) as opened:
            feeds = _load_arrays(arrays, ["images"])
            outputs = dict(zip(opened.names, opened.exits(feeds["images"])))  # noqa: B905 - 3.8 knows no strict
    else:
        with backend(request["backend"]).open(path, options) as session:
            feeds = _load_arrays(arrays, [spec.name for spec in session.inputs])
            outputs = run_batches(session, feeds, request.get("batch", 1))
    with atomic(Path(request["outputs"])) as temporary, temporary.open("wb") as file:
        np.savez(file, **cast("Any", outputs))
    return {"rows": len(next(iter(feeds.values()))), "outputs": sorted(outputs)}


def cascade(request: dict[str, Any]) -> dict[str, Any]:
    """Put images through early exits one at a time, each stopping where the threshold lets it, and time them.

    Warmed up with one image that goes through every stage; at most `images` are timed, evenly over those there are.
    """
    import numpy as np

    from kdedge.engine.cascade import open_cascade
    from kdedge.profile.meter import warm_up

    images = _load_arrays(Path(request["arrays"]), ["images"])["images"]
    ids = np.linspace(0, len(images) - 1, min(request["images"], len(images))).round().astype(int)
    nanoseconds, labels, exits = [], [], []
    with open_cascade(Path(request["model"]), request.get("options")) as opened:
        warm = warm_up(lambda: opened.exits(images[:1]), request["warmup_cap"])
        for image in (images[i : i + 1] for i in ids):
            begin = time.perf_counter_ns()
            answer = opened.run(image, request["threshold"])
            nanoseconds.append(time.perf_counter_ns() - begin)
            labels.append(int(answer.logits[0].argmax()))
            exits.append(int(answer.exit[0]))
    times = [elapsed / MILLISECOND for elapsed in nanoseconds]
    return {"ids": ids.tolist(), "latency_ms": times, "labels": labels, "exits": exits, "settled": warm.settled}


def _load_arrays(path: Path, names: list[str]) -> Arrays:
    import numpy as np

    try:
        with path.open("rb") as file:  # numpy leaves a broken archive open
            content = np.load(file)
            if not hasattr(content, "files"):
                raise ModelError(f"arrays {path}", "it is one array, not an .npz archive")
            return {name: content[name] for name in names}
    except KeyError as error:
        raise ModelError(f"arrays {path}", f"it has no {error}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"arrays {path}", str(error)) from error


def run_batches(session: Session, feeds: Arrays, batch: int) -> Arrays:
    """The outputs for (N, ...) inputs.  A model's fixed batch wins over `batch`, and its last one is filled up."""
    import numpy as np

    counts = {name: len(array) for name, array in feeds.items()}
    rows = max(counts.values(), default=0)
    if rows == 0 or min(counts.values()) != rows:
        raise ModelError(f"arrays for {session.model}", f"rows by input: {counts}")
    fixed = next((spec.shape[0] for spec in session.inputs if spec.shape and spec.shape[0]), None)
    batch = fixed or min(batch, session.max_batch or batch)
    parts: dict[str, list[Any]] = {spec.name: [] for spec in session.outputs}
    for start in range(0, rows, batch):
        chosen = np.arange(start, min(start + batch, rows))
        padded = np.pad(chosen, (0, batch - len(chosen)), mode="edge") if fixed else chosen
        outputs = session.run({name: array[padded] for name, array in feeds.items()})
        for name, value in outputs.items():
            if np.shape(value)[:1] != (len(padded),):
                raise ModelError(
                    f"output {name} of {session.model}",
                    f"it has no row for each of {len(padded)} inputs",
                )
            parts[name].append(value[: len(chosen)])
    return {name: np.concatenate(values) for name, values in parts.items()}


def main() -> None:
    reply_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # with-blocks set back what they changed
    os.dup2(2, 1)  # whatever a library prints must not end up in the reply
    code = 0
    try:
        reply = respond(json.load(sys.stdin))
    except (KdedgeError, ModuleNotFoundError, OSError) as raised:
        error = user_error(raised)
        code = error.exit_code
        reply = {"error": {"kind": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix}}
    with reply_to:
        json.dump(reply, reply_to)
    sys.exit(code)


def user_error(error: Exception) -> KdedgeError:
    """What to tell the user; raises what is none of theirs: a bug."""
    if isinstance(error, KdedgeError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("kdedge"):
        package = error.name.split(".")[0]
        return MissingTool(f"{package} is not installed", "the agent needs it", f"pip install {package}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return KdedgeError("the disk is full", str(error), "df -h")
    raise error


if __name__ == "__main__":
    main()
