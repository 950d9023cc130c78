"""Numbers from samples, as pure functions of numpy arrays."""

from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdedge.core.errors import KdedgeError
from kdedge.core.exits import OperatingPoint
from kdedge.core.profiling import Distribution
from kdedge.core.quality import Quality

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


def share_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` that was observed: Wilson, J. Am. Stat. Assoc. 22 (1927) 209."""
    z2 = 1.959964**2
    middle = share + z2 / (2 * count)
    half = sqrt(z2 * share * (1 - share) / count + (z2 / (2 * count)) ** 2)
    return (middle - half) / (1 + z2 / count), (middle + half) / (1 + z2 / count)


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
        by_process={f"p{p}": [percentile(process, p) for process in processes] for p in (50, 95)},
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


class Answers(NamedTuple):
    """What E exits say of N images."""

    confidence: Array
    """(E, N): the largest softmax probability."""
    right: NDArray[np.bool_]
    """(E, N)"""


class Costs(NamedTuple):
    """Of one image that stops at each of E exits, all that was computed on the way there included."""

    macs: Array
    latency_ms: Array


def judge(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Answers:
    """Exits' (E, N, K) logits against (N,) labels."""
    scores = [np.asarray(exit_logits, dtype=np.float64) for exit_logits in logits]
    confidence = np.stack([softmax(exit_scores).max(axis=1) for exit_scores in scores])
    return Answers(confidence, np.stack([exit_scores.argmax(axis=1) == labels for exit_scores in scores]))


def stops(confidence: Array, threshold: float) -> NDArray[np.int64]:
    """(N,): the first exit that is at least as sure as `threshold`; the last one takes what is left."""
    sure = confidence >= threshold
    sure[-1] = True
    return np.asarray(sure.argmax(axis=0), dtype=np.int64)


def operating_point(answers: Answers, costs: Costs, threshold: float) -> OperatingPoint:
    """Accuracy and mean cost when every image stops at the first exit that is sure enough."""
    stopped = stops(answers.confidence, threshold)
    shares = np.bincount(stopped, minlength=len(answers.confidence)) / len(stopped)
    return OperatingPoint(
        threshold=threshold,
        top1=float(answers.right[stopped, np.arange(len(stopped))].mean()),
        macs=float(shares @ costs.macs),
        latency_ms=float(shares @ costs.latency_ms),
        shares=shares.tolist(),
    )


def thresholds(confidence: Array, most: int = 200) -> Array:
    """At most `most` in order: 0, where every image stops at once, 1, and a selection even over the confidences.

    They lie halfway between confidences, so that rounding on another machine sends no image elsewhere.
    """
    found = np.unique(confidence[:-1])
    between = (found[1:] + found[:-1]) / 2
    chosen = np.unique(np.linspace(0, len(between) - 1, min(most - 2, len(between))).round().astype(int))
    return np.unique(np.concatenate([[0.0], between[chosen], [1.0]]))


def exit_curve(answers: Answers, costs: Costs) -> list[OperatingPoint]:
    """From every image at the first exit to, as a rule, every image at the last."""
    return [operating_point(answers, costs, float(threshold)) for threshold in thresholds(answers.confidence)]


def choose(curve: list[OperatingPoint], wanted: float) -> OperatingPoint:
    """The cheapest point, in mean MACs, that is accurate enough.

    Raises:
        KdedgeError: none is.
    """
    enough = [point for point in curve if point.top1 >= wanted]
    if not enough:
        best = max(point.top1 for point in curve)
        raise KdedgeError(
            f"accuracy {100 * wanted:.2f} %",
            f"no threshold reaches it on the validation images, the best {100 * best:.2f} %",
            f"kdedge exits --accuracy {int(1e4 * best) / 100:.2f}%",
        )
    return min(enough, key=lambda point: (point.macs, -point.top1))
