"""Numbers from samples, as pure functions of numpy arrays."""

import numpy as np
from numpy.typing import NDArray

from kdedge.core.report import Distribution, Quality

Array = NDArray[np.float64]
PERCENTILES = (90, 95, 99)


def percentile(samples: Array, p: int) -> float:
    """Nearest rank without interpolation, as trtexec prints it; the median averages the two middle values."""
    if p == 50:
        return float(np.median(samples))
    n = len(samples)
    return float(np.sort(samples)[max(n - 1 - (100 - p) * n // 100, 0)])


def supported(n: int, p: int) -> bool:
    """Whether at least ten of n samples lie above the p-th percentile."""
    return n * (100 - p) >= 1000


def median_interval(
    processes: list[Array], confidence: float = 0.95, rounds: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap interval of the median: processes are drawn, then each stands for its own median.  None below two."""
    if len(processes) < 2:
        return None
    medians = np.array([np.median(samples) for samples in processes])
    drawn = np.random.default_rng(seed).choice(medians, (rounds, len(medians)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.median(drawn, axis=1), [tail, 1 - tail])
    return float(low), float(high)


def distribution(processes: list[Array]) -> Distribution:
    """Summarise the samples of several processes; nothing is left out of any figure."""
    samples = np.concatenate(processes)
    low, high = np.quantile(samples, [0.25, 0.75])
    return Distribution(
        n=len(samples),
        processes=len(processes),
        median=percentile(samples, 50),
        mean=float(samples.mean()),
        std=float(samples.std(ddof=1)) if len(samples) > 1 else 0.0,
        min=float(samples.min()),
        max=float(samples.max()),
        percentiles={f"p{p}": percentile(samples, p) if supported(len(samples), p) else None for p in PERCENTILES},
        median_interval=median_interval(processes),
        outliers=int((samples > high + 3 * (high - low)).sum()),
    )


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)


def calibration_error(probabilities: Array, labels: NDArray[np.int64], bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (Guo et al., ICML 2017, arXiv:1706.04599, eq. 3)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[index == b].mean() - confidence[index == b].mean()) * (index == b).mean() for b in np.unique(index)
    ]
    return float(np.sum(gaps))


def classify(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Quality:
    """Quality of (N, K) logits against (N,) labels."""
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    present = [bool((truth == k).any()) for k in range(classes)]
    top5 = np.argpartition(-scores, 5, axis=1)[:, :5] if classes > 5 else None
    return Quality(
        images=len(truth),
        top1=float((predicted == truth).mean()),
        top5=float((top5 == truth[:, None]).any(axis=1).mean()) if top5 is not None else None,
        per_class=[float((predicted[truth == k] == k).mean()) if present[k] else 0.0 for k in range(classes)],
        empty=[k for k in range(classes) if not present[k]],
        ece=calibration_error(softmax(scores), truth),
    )


def output_error(reference: NDArray[np.floating], candidate: NDArray[np.floating]) -> tuple[float, float]:
    """Largest and mean absolute difference, relative to the largest absolute reference value."""
    gap = np.abs(np.asarray(candidate, dtype=np.float64) - np.asarray(reference, dtype=np.float64))
    scale = max(float(np.abs(reference).max()), 1e-12)
    return float(gap.max()) / scale, float(gap.mean()) / scale
