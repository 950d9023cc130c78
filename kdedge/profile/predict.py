"""What a model answers on a target."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.profile.targets import Target


def predict(
    target: Target, backend: str, model: Path, arrays: Path, options: dict[str, Any] | None = None, batch: int = 64
) -> dict[str, NDArray[Any]]:
    """Each output's rows for those of an .npz file, whose arrays are named after the model's inputs.

    A cascade takes the array `images`; its outputs are the logits of every exit.

    Raises:
        ModelError: the model cannot be opened, or the arrays do not fit it.
    """
    with TemporaryDirectory(prefix="kdedge-") as folder:
        outputs = Path(folder, "outputs.npz")
        files = {"model": str(model), "arrays": str(arrays), "outputs": str(outputs)}
        target.run({"mode": "predict", "backend": backend, "options": options or {}, "batch": batch, **files})
        with np.load(outputs) as answer:
            return {name: answer[name] for name in answer.files}
