"""What is kept of a detector's outputs: boxes, made batch by batch, since raw heads are a thousand times as large.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdedge.engine.boxes import detections_of, pack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdedge.engine.boxes_decoding import Decoding

    Array = np.ndarray[Any, Any]

BATCH = 16
"""Images whose raw heads are in memory at a time."""


def kept(outputs: Mapping[str, Array], decoding: Decoding) -> Array:
    """The boxes of a batch, (N, detections, 6) as `pack` has them.

    An image whose outputs are not all finite has none: its rows are of class -1, and for the rest NaN.

    Raises:
        ModelError: the outputs are no detector's, or not of this one.
    """
    finite = np.logical_and.reduce(
        [np.isfinite(values).reshape(len(values), -1).all(axis=1) for values in outputs.values()]
    )
    found = detections_of({name: values[finite] for name, values in outputs.items()}, decoding)
    rows = np.full((len(finite), decoding.detections, 6), np.nan, dtype=np.float32)
    rows[..., 0] = -1
    rows[finite] = pack(found, decoding.detections)
    return rows
