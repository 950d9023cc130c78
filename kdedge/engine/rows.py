"""Any number of rows through a session, whatever batch its model takes.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kdedge.core.errors import ModelError

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays, Session

    Keep = Callable[[Arrays], Arrays]

BATCH = 256


def run_rows(session: Session, rows: np.ndarray[Any, Any], batch: int = BATCH, keep: Keep | None = None) -> Arrays:
    """Every output of a model with one input, a row for each row given.

    Args:
        batch: rows at a time, as far as the model takes them; its own fixed batch wins over it.
        keep: what to return of each batch's outputs instead, a row for each row as well.

    Raises:
        ModelError: there are no rows, or they are not what the model takes.
    """
    if not len(rows):
        raise ModelError(f"nothing to run {session.model} on", "there are no rows")
    name, fixed = session.inputs[0].name, session.inputs[0].shape[0]
    size = fixed or min(batch, session.max_batch or batch)
    parts = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        missing = fixed - len(part) if fixed else 0
        feed = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
        outputs = {key: value[: len(part)] for key, value in session.run({name: feed}).items()}
        parts.append(keep(outputs) if keep else outputs)
    return parts[0] if len(parts) == 1 else {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
