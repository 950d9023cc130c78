"""The range that each activation takes over the calibration images, a chunk of them in memory at a time."""

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, TensorData, TensorsData, create_calibrator

from kdedge.core.deployment import Calibration
from kdedge.export.trace import dims

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
BINS = 2048
EMPTY = 1e-4


class Reader:
    """The one method of a CalibrationDataReader that calibrators call."""

    def __init__(self, name: str, images: NDArray[Any], batch: int) -> None:
        self._feeds = iter([{name: images[start : start + batch]} for start in range(0, len(images), batch)])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def tensor_ranges(
    model: ModelProto, images: NDArray[Any], operators: list[str], how: Calibration, symmetric: bool
) -> TensorsData:
    """Ranges of what the operators of these types take and give.

    Ranges or histograms carry over from chunk to chunk; activations do not.

    Args:
        symmetric: whether the codes will be laid symmetrically about zero.
    """
    entry = model.graph.input[0]
    batch = dims(entry)[0]
    with tempfile.TemporaryDirectory(prefix="kdedge-calibration-") as name, redirect_stdout(io.StringIO()):  # it prints
        folder = Path(name)
        onnx.save(model, folder / "model.onnx")
        calibrator = create_calibrator(
            folder / "model.onnx",
            operators,
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=METHODS[how.method],
            extra_options={"num_bins": BINS, "percentile": how.percentile, "symmetric": symmetric},
        )
        for start in range(0, len(images), how.chunk):
            chunk = images[start : start + how.chunk]
            calibrator.collect_data(Reader(entry.name, chunk, batch if isinstance(batch, int) else len(chunk)))
        if how.method == "entropy":
            return entropy_ranges(calibrator.collector.get_histogram_dict(), symmetric)
        return calibrator.compute_data()


def entropy_ranges(histograms: dict[str, Any], symmetric: bool) -> TensorsData:
    """Ranges by `entropy_bins`.

    ONNX Runtime's own search takes minutes on a small network, and with its 128 bins has one range to choose from.
    """
    ranges = {}
    for name, (counts, edges, lowest, highest, _) in histograms.items():
        middle = len(counts) // 2
        magnitudes = coarse(counts[middle:] + counts[:middle][::-1])
        levels = 128 if symmetric or lowest < 0 else 256
        bound = edges[-1] * entropy_bins(magnitudes, levels) / len(magnitudes)
        ranges[name] = TensorData(
            lowest=np.float32(max(lowest, -bound)), highest=np.float32(min(highest, bound)), hist=counts, bins=edges
        )
    return TensorsData(CalibrationMethod.Entropy, ranges)


def coarse(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most BINS bins; as many as before are merged into each."""
    factor = -(-len(counts) // BINS)
    return np.add.reduceat(counts, np.arange(0, len(counts), factor))


def entropy_bins(counts: NDArray[np.int64], levels: int) -> int:
    """How many of the lowest bins to keep so that `levels` codes lose the least information about the magnitudes.

    S. Migacz: "8-bit Inference with TensorRT", GTC 2017, session S7310: the least Kullback-Leibler divergence of the
    clipped histogram from its quantized self.  Zero has a code of its own, so its bin counts as its neighbor.
    """
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    best, kept = np.inf, len(counts)
    for keep in range(levels, len(counts) + 1):
        clipped, level = counts[:keep].copy(), np.arange(keep) * levels // keep
        clipped[-1] += counts[keep:].sum()
        filled = counts[:keep] > 0
        share = np.bincount(level, weights=counts[:keep]) / np.maximum(np.bincount(level, weights=filled), 1)
        divergence = kl_divergence(clipped, share[level] * filled)
        if divergence <= best:
            best, kept = divergence, keep
    return kept


def kl_divergence(p: NDArray[Any], q: NDArray[Any]) -> float:
    """Of counts, in units of their total; where q has nothing it counts as EMPTY."""
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], EMPTY))).sum())
