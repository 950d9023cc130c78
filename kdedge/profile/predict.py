"""What a model answers on a target."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.profile.targets import Target


def predict(
    target: Target,
    backend: str,
    model: Path,
    arrays: Path,
    options: dict[str, Any] | None = None,
    batch: int = 64,
    decoding: Mapping[str, Any] | None = None,
) -> dict[str, NDArray[Any]]:
    """Each output's rows for those of an .npz file, whose arrays are named after the model's inputs.

    A cascade takes the array `images`; its outputs are the logits of every exit.

    Args:
        decoding: of a detector, see engine/boxes_decoding.  Its outputs stay there, and its `boxes` come back, packed
            as engine/boxes does it.

    Raises:
        ModelError: the model cannot be opened, or the arrays do not fit it.
    """
    with TemporaryDirectory(prefix="kdedge-") as folder:
        outputs = Path(folder, "outputs.npz")
        files = {"model": str(model), "arrays": str(arrays), "outputs": str(outputs)}
        request = {"mode": "predict", "backend": backend, "options": options or {}, "batch": batch, **files}
        target.run(request if decoding is None else {**request, "decoding": dict(decoding)})
        with np.load(outputs) as answer:
            return {name: answer[name] for name in answer.files}
