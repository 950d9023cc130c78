"""What the agent does to ask a model or a cascade about given arrays.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kdedge.core.errors import ModelError
from kdedge.engine.boxes_decoding import read_decoding
from kdedge.engine.boxes_kept import kept
from kdedge.engine.cascade import open_cascade
from kdedge.engine.sidecar import atomic
from kdedge.profile.meter import warm_up
from kdedge.profile.trtexec_backend import library

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays, Session
    from kdedge.engine.rows import Keep

MILLISECOND = 1_000_000


def predict(request: dict[str, Any]) -> dict[str, Any]:
    """Run the arrays that are named after the model's inputs, a batch at a time, and write an array for each output.

    A cascade takes `images`; its outputs are the logits of every exit.  Where the request has the `decoding` of a
    detector, its boxes are written in the place of its outputs.
    """
    path, arrays, options = Path(request["model"]), Path(request["arrays"]), request.get("options", {})
    if path.suffix == ".json":
        with open_cascade(path, options) as opened:
            feeds = _load_arrays(arrays, ["images"])
            outputs = dict(zip(opened.names, opened.exits(feeds["images"])))  # noqa: B905 - 3.8 knows no strict
    else:
        with library(request["backend"]).open(path, options) as session:
            feeds = _load_arrays(arrays, [spec.name for spec in session.inputs])
            outputs = run_batches(session, feeds, request.get("batch", 1), _keep(path, request.get("decoding")))
    with atomic(Path(request["outputs"])) as temporary, temporary.open("wb") as file:
        np.savez(file, **cast("Any", outputs))
    return {"rows": len(next(iter(feeds.values()))), "outputs": sorted(outputs)}


def _keep(model: Path, decoding: dict[str, Any] | None) -> Keep | None:
    """What to write of a batch's outputs, where it is not all of them."""
    if decoding is None:
        return None
    known = read_decoding(str(model), decoding)
    return lambda outputs: {"boxes": kept(outputs, known)}


def cascade(request: dict[str, Any]) -> dict[str, Any]:
    """Put images through early exits one at a time, each stopping where the threshold lets it, and time them.

    Warmed up with one image that goes through every stage; at most `images` are timed, evenly over those there are.
    """
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


def run_batches(session: Session, feeds: Arrays, batch: int, keep: Keep | None = None) -> Arrays:
    """The outputs for (N, ...) inputs, or what is kept of them.

    A model's fixed batch wins over `batch`, and its last one is filled up.
    """
    counts = {name: len(array) for name, array in feeds.items()}
    rows = max(counts.values(), default=0)
    if rows == 0 or min(counts.values()) != rows:
        raise ModelError(f"arrays for {session.model}", f"rows by input: {counts}")
    fixed = next((spec.shape[0] for spec in session.inputs if spec.shape and spec.shape[0]), None)
    batch = fixed or min(batch, session.max_batch or batch)
    parts = []
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
        answers = {name: value[: len(chosen)] for name, value in outputs.items()}
        parts.append(keep(answers) if keep else answers)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
