"""Whether each hop on the way to the engine still computes what the one before it did, image by image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kdedge.core.correctness import correctness
from kdedge.core.deployment import Tolerance
from kdedge.core.errors import ModelError
from kdedge.core.quality import MEASURES, BoxQuality
from kdedge.core.report import Hop
from kdedge.core.rundir import atomic_path
from kdedge.core.stats import classify, output_error
from kdedge.engine.rows import BATCH

if TYPE_CHECKING:
    from torch import nn

    from kdedge.engine.base import Arrays
    from kdedge.engine.rows import Keep

Logits = NDArray[np.float32]
Labels = NDArray[np.integer[Any]]
LOWER = Tolerance(agreement=0.99, accuracy_drop=0.01)
"""What an engine of less than fp32 may lose against its ONNX file."""
ROUNDING = 1e-12  # of a difference of two accuracies


@dataclass(frozen=True)
class Predictions:
    """What is kept of one hop's outputs, one row an image."""

    ids: NDArray[np.int64]
    """(N,) which images of the set."""
    outputs: Logits
    """(N, classes) as they are, or boxes (N, rows, 6) as engine/boxes packs them."""

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, ids=self.ids.astype(np.int64), outputs=self.outputs.astype(np.float32))

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Raises ModelError when `path` does not hold predictions."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["ids"], arrays["outputs"])
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise ModelError(f"cannot read predictions from {path}", str(error), "kdedge export") from None


def predict_torch(
    model: "nn.Module",
    images: NDArray[np.float32],
    names: Sequence[str],
    batch: int = BATCH,
    keep: "Keep | None" = None,
) -> "Arrays":
    """What a model answers to normalized images (N, C, H, W), in eval mode; the model's modes are put back.

    Args:
        names: of its outputs; it has several where it gives a tuple.
        keep: what to return of each batch's outputs instead, a row an image.
    """
    import torch

    modes = [(module, module.training) for module in model.modules()]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    model.eval()
    parts = []
    try:
        with torch.inference_mode():
            for part in batches(images, batch):
                answer = model(torch.tensor(part, device=device))
                values = answer if isinstance(answer, tuple) else (answer,)
                outputs = {name: value.float().cpu().numpy() for name, value in zip(names, values, strict=True)}
                parts.append(keep(outputs) if keep else outputs)
    finally:
        for module, training in modes:
            module.training = training
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def batches(images: NDArray[Any], size: int) -> list[NDArray[Any]]:
    if not len(images):
        raise ModelError("no images to predict on", "the set is empty")
    return [np.ascontiguousarray(images[start : start + size]) for start in range(0, len(images), size)]


def compare(
    name: str,
    candidate: Predictions,
    reference: Predictions | None,
    labels: Labels,
    tolerance: Tolerance,
    *,
    reference_name: str | None = None,
) -> Hop:
    """One hop beside the one it came from (None for the first).

    Images whose outputs are not finite count as wrong and are left out of the errors.

    Args:
        labels: (N,) of the same images, in the same order.

    Raises:
        ModelError: the two hops, or the labels, are not of the same images.
    """
    check_same(name, candidate, reference, labels)
    outputs = judged(candidate.outputs, labels)
    right = correctness((outputs.argmax(axis=1) == labels).tolist(), candidate.ids.tolist(), labels.tolist())
    hop = Hop(name=name, reference=reference_name, quality=classify(outputs, labels), correctness=right)
    finite = np.isfinite(candidate.outputs).all(axis=1)
    if not finite.all():
        count = f"{np.isnan(candidate.outputs).sum()} NaN, {np.isinf(candidate.outputs).sum()} Inf"
        hop.problems.append(f"{(~finite).sum()} of {len(labels)} images have outputs that are not finite ({count})")
    if reference is None:
        return hop
    both = finite & np.isfinite(reference.outputs).all(axis=1)
    if both.any():
        hop.max_error, hop.mean_error = output_error(reference.outputs[both], candidate.outputs[both])
    same = candidate.outputs.argmax(axis=1) == reference.outputs.argmax(axis=1)
    hop.agreement = float((same & both).mean())
    drop = classify(judged(reference.outputs, labels), labels).accuracy - hop.quality.accuracy
    hop.problems += exceeded(hop, drop, tolerance)
    return hop


def check_same(name: str, candidate: Predictions, reference: Predictions | None, labels: NDArray[Any]) -> None:
    if not len(candidate.ids) == len(candidate.outputs) == len(labels):
        counts = f"{len(candidate.ids)} ids, {len(candidate.outputs)} predictions and {len(labels)} labels"
        raise ModelError(f"{name} cannot be judged", f"there are {counts}", "kdedge export")
    if reference is None:
        return
    if not np.array_equal(candidate.ids, reference.ids):
        raise ModelError(f"{name} and the hop it came from are of different images", "the ids differ", "kdedge export")
    if candidate.outputs.shape != reference.outputs.shape:
        shapes = f"{candidate.outputs.shape} and {reference.outputs.shape}"
        raise ModelError(f"{name} and the hop it came from differ in shape", shapes, "kdedge export")


def judged(outputs: Logits, labels: Labels) -> Logits:
    """Outputs with each row that is not finite replaced by one that is wrong whatever the class."""
    broken = ~np.isfinite(outputs).all(axis=1)
    if not broken.any():
        return outputs
    scores = outputs.copy()
    scores[broken] = 0
    scores[broken, labels[broken]] = -1
    return scores


def exceeded(hop: Hop, accuracy_drop: float, tolerance: Tolerance) -> list[str]:
    """Each limit on a classifier's hop that was passed, as a sentence."""
    problems = []
    if tolerance.max_error is not None and hop.max_error is not None and hop.max_error > tolerance.max_error:
        problems.append(f"outputs differ by {hop.max_error:.4g} of the largest one, limit {tolerance.max_error:g}")
    if tolerance.agreement is not None and hop.agreement is not None and hop.agreement < tolerance.agreement:
        kept, least = 100 * hop.agreement, 100 * tolerance.agreement
        problems.append(f"{kept:.4g} % of the images keep their class, limit {least:g} %")
    return problems + fallen(hop, accuracy_drop, tolerance)


def fallen(hop: Hop, accuracy_drop: float, tolerance: Tolerance) -> list[str]:
    """By more than it may."""
    limit = tolerance.accuracy_drop
    if limit is None or accuracy_drop <= limit + ROUNDING:
        return []
    measure = MEASURES["detect" if isinstance(hop.quality, BoxQuality) else "classify"]
    return [f"{measure.label} fell by {100 * accuracy_drop:.4g} points, limit {100 * limit:g}"]


def refuse(hops: Iterable[Hop]) -> None:
    """Raises ModelError when one of them loses more than is tolerated."""
    lines = [f"{hop.name} against {hop.reference}: {problem}" for hop in hops for problem in hop.problems]
    if lines:
        raise ModelError(
            "a hop loses more than the recipe tolerates", "\n  ".join(lines),
            "see export.tolerance, export.calibration.method, or leave the precision out of export.precisions",
        )  # fmt: skip
