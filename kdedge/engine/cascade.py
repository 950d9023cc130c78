"""Early exits on a device: stage models in a row, and an image goes no further than it must.

S. Teerapittayanon et al.: "BranchyNet", ICPR 2016, arXiv:1709.01686 (stop at an exit that is sure enough; here sure is
a large softmax probability instead of a small entropy).
A cascade is a JSON file beside its engines.  Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine.base import backend
from kdedge.engine.rows import BATCH, run_rows
from kdedge.engine.sidecar import atomic

if TYPE_CHECKING:
    from kdedge.engine.base import Session

    Array = np.ndarray[Any, Any]

SCHEMA = 1
FIX = "kdedge export --exit all   (writes it again)"


class Link(NamedTuple):
    """One stage model of a cascade and the names of what it takes and gives."""

    model: str
    """File, relative to the cascade's own."""
    input: str
    feature: str | None
    """Output that the next stage takes; None for the last."""
    logits: str


class CascadeFile(NamedTuple):
    """What a device needs of a cascade's file."""

    backend: str
    options: dict[str, Any]
    threshold: float | None
    stages: list[Link]


class Answer(NamedTuple):
    logits: Array
    """(N, classes), of the exit that each image stopped at."""
    exit: Array
    """(N,) its index, 0 for the first."""


def cascade_record(precision: str, backend: str, options: dict[str, Any], links: list[Link]) -> dict[str, Any]:
    """What the file of a cascade holds; its threshold is still to be chosen."""
    return {
        "schema_version": SCHEMA,
        "precision": precision,
        "backend": backend,
        "options": options,
        "threshold": None,
        "stages": [link._asdict() for link in links],
    }


def read_cascade(path: Path) -> CascadeFile:
    """Raises ModelError when the file is missing or not as kdedge writes it."""
    record = _read(path)
    try:
        links = [Link(*(stage[field] for field in Link._fields)) for stage in record["stages"]]
        known, threshold = record["schema_version"] == SCHEMA, record["threshold"]
        content = CascadeFile(str(record["backend"]), dict(record["options"]), threshold, links)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"cascade {path}", f"it is not as kdedge writes it: {error!r}", FIX) from None
    if not known or not links or type(threshold) not in (int, float, type(None)):
        raise ModelError(f"cascade {path}", "its schema_version, stages or threshold is not as kdedge writes it", FIX)
    return content


def set_threshold(path: Path, threshold: float) -> None:
    """Write how sure an exit must be into a cascade's file; the rest of it stays as it is."""
    record = {**_read(path), "threshold": threshold}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def open_cascade(path: Path, options: dict[str, Any] | None = None) -> Cascade:
    """Open every stage of a cascade; close it, or use it in a with-block.

    Args:
        options: of the backend, such as threads; they win over those in the file.

    Raises:
        ModelError: the file or a stage's is missing or broken, or they do not fit each other.
    """
    file = read_cascade(path)
    library, settings = backend(file.backend), {**file.options, **(options or {})}
    with ExitStack() as opened:
        stages = []
        for number, link in enumerate(file.stages, 1):
            session = opened.enter_context(library.open(path.parent / link.model, settings))
            stages.append(Stage(session, link, number == len(file.stages)))
        return Cascade(path.name, stages, file.threshold, opened.pop_all())


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"cascade {path}", "there is no such file", FIX) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cascade {path}", f"it cannot be read: {error}", FIX) from None


class Stage:
    """An opened stage model."""

    def __init__(self, session: Session, link: Link, last: bool) -> None:
        self._session, self.link = session, link
        takes, gives = [spec.name for spec in session.inputs], {spec.name for spec in session.outputs}
        needed = {link.logits} if last else {link.logits, link.feature}
        if takes != [link.input] or not needed <= gives:
            found = "it takes {} and gives {}".format(", ".join(takes), ", ".join(sorted(gives)))
            raise ModelError(f"{link.model} does not fit its cascade", found, FIX)

    def run(self, rows: Array) -> tuple[Array, Array]:
        """Logits (N, classes), and what the next stage takes; after the last stage that is empty."""
        outputs = run_rows(self._session, rows)
        logits = outputs[self.link.logits].astype(np.float32, copy=False)
        return logits, outputs[self.link.feature] if self.link.feature else logits[:0]


class Cascade:
    """Stage models that are run one after the other.  Images are as the first of them takes them."""

    def __init__(self, name: str, stages: list[Stage], threshold: float | None, sessions: ExitStack) -> None:
        self._name, self._stages, self._sessions = name, stages, sessions
        self.names = [stage.link.logits for stage in stages]
        self.threshold = threshold

    def exits(self, images: Array) -> Array:
        """Logits (exits, N, classes) of every exit: nothing is stopped early."""
        return np.concatenate([np.stack(list(self._all(part))) for part in _parts(images)], axis=1)

    def _all(self, rows: Array) -> Iterator[Array]:
        for stage in self._stages:
            logits, rows = stage.run(rows)
            yield logits

    def run(self, images: Array, threshold: float | None = None) -> Answer:
        """Each image's answer at the first exit whose largest softmax probability is at least `threshold`.

        The last exit takes what is left.  Images that have stopped are not computed any further.

        Args:
            threshold: the one in the cascade's file if not given; 0 stops all at the first exit, above 1 none early.

        Raises:
            KdedgeError: neither is given.
        """
        chosen = self.threshold if threshold is None else threshold
        if chosen is None:
            raise KdedgeError(
                f"{self._name} has no threshold", "none has been chosen for it", "kdedge exits   (chooses one)"
            )
        parts = [self._answer(part, chosen) for part in _parts(images)]
        return Answer(np.concatenate([part.logits for part in parts]), np.concatenate([part.exit for part in parts]))

    def _answer(self, rows: Array, threshold: float) -> Answer:
        left = np.arange(len(rows))
        logits, rows = self._stages[0].run(rows)
        answer = Answer(logits.copy(), np.zeros(len(left), dtype=np.int64))
        for number, stage in enumerate(self._stages[1:], 1):
            unsure = ~(confidence(logits) >= threshold)  # not <: what is no number is not sure
            left, rows = left[unsure], rows[unsure]
            if not len(left):
                break
            logits, rows = stage.run(rows)
            answer.logits[left], answer.exit[left] = logits, number
        return answer

    def close(self) -> None:
        self._sessions.close()

    def __enter__(self) -> Cascade:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parts(images: Array) -> list[Array]:
    """A part at a time, so that feature maps of many images are never in memory together."""
    return [images[start : start + BATCH] for start in range(0, max(len(images), 1), BATCH)]


def confidence(logits: Array) -> Array:
    """(N,): the largest softmax probability of each row of (N, classes); NaN where a logit is NaN or +Inf."""
    with np.errstate(invalid="ignore"):
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        top: Array = 1 / np.exp(shifted).sum(axis=1)
    return top
