import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import create_calibrator

from kdedge.core.deployment import Calibration
from kdedge.export import calibration
from kdedge.export.calibration import coarse, entropy_bins, tensor_ranges
from kdedge.export.onnx import load

Images = NDArray[np.float32]
Write = Callable[..., Path]
METHODS = ["minmax", "entropy", "percentile"]


def assert_close(left: dict[str, tuple[float, float]], right: dict[str, tuple[float, float]]) -> None:
    assert sorted(left) == sorted(right)
    np.testing.assert_allclose([left[name] for name in right], [right[name] for name in right], rtol=1e-5, atol=1e-6)


def ranges(path: Path, images: Images, symmetric: bool = False, **keys: Any) -> dict[str, tuple[float, float]]:
    model = onnx.shape_inference.infer_shapes(load(path))
    found = tensor_ranges(model, images, ["Conv"], Calibration(**keys), symmetric)
    return {name: (float(np.min(data.lowest)), float(np.max(data.highest))) for name, data in found.items()}


def test_minmax_in_chunks_sees_what_one_chunk_does(fp32: Path, images: Images) -> None:
    whole = ranges(fp32, images, chunk=len(images))
    assert whole["images"] == (images.min(), images.max())
    assert_close(ranges(fp32, images, chunk=10), whole)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_histograms_in_chunks_are_those_of_one_chunk(fp32: Path, images: Images, method: str) -> None:
    """With equal chunks: then the bins, which the first chunk decides, are the same."""
    four = np.tile(images[:8], (4, 1, 1, 1))
    assert_close(ranges(fp32, four, method=method, chunk=8), ranges(fp32, four, method=method, chunk=32))


@pytest.mark.parametrize("method", METHODS)
def test_calibration_sees_the_last_chunk(fp32: Path, images: Images, method: str) -> None:
    growing = np.concatenate([images[:8], 3 * images[:8]])
    small, large = (ranges(fp32, part, method=method, chunk=8)["images"] for part in (images[:8], growing))
    assert large[0] < 1.5 * small[0]
    assert large[1] > 1.5 * small[1]


def test_percentile_leaves_the_tails_out(fp32: Path, images: Images) -> None:
    """Of normal samples 1 % lie beyond 2.576, half of them on each side."""
    low, high = ranges(fp32, images, method="percentile", percentile=99)["images"]
    assert (low, high) == pytest.approx((-2.576, 2.576), abs=0.05)


def test_entropy_leaves_a_lonely_outlier_out(fp32: Path, images: Images) -> None:
    spiked = images.copy()
    spiked[0, 0, 0, 0] = 60
    low, high = ranges(fp32, spiked, method="entropy")["images"]
    assert low == spiked.min()
    assert 3 < high < 20


def test_entropy_keeps_every_bin_of_a_flat_histogram() -> None:
    assert entropy_bins(np.full(300, 50), 128) == 300


def test_entropy_weighs_clipping_against_coarseness() -> None:
    """By hand, with four levels; the first bin counts as the second.

    keep 4: 20 20 60 20+2 against 20 20 60 20:              22 ln(22/20) = 2.10
    keep 5: (20 20) 60 20 1+1 against (20 20) 60 20 1:       2 ln(2/1)   = 1.39
    keep 8: (20 20) (60 20) (1 0) (0 1) against (40 40):    60 ln(60/40) + 20 ln(20/40) = 10.47
    6 and 7: the last bin is empty, so that the outlier costs ln(1e4) = 9.2 already.
    """
    assert entropy_bins(np.array([500, 20, 60, 20, 1, 0, 0, 1]), 4) == 5


def test_entropy_does_not_clip_everything_into_one_bin() -> None:
    """Two lumps, the larger one outside: keeping only the first would leave one filled bin, equal to itself."""
    lumps = np.zeros(1024, dtype=np.int64)
    lumps[300], lumps[1000] = 2, 800
    assert entropy_bins(lumps, 128) > 1000


def test_coarse_merges_neighbors_down_to_the_usual_number_of_bins() -> None:
    counts = np.arange(5000)
    merged = coarse(counts)
    assert (len(merged), merged.sum()) == (1667, counts.sum())
    assert merged[:2].tolist() == [0 + 1 + 2, 3 + 4 + 5]
    assert np.array_equal(coarse(counts[:2048]), counts[:2048])


@pytest.mark.parametrize("method", METHODS)
def test_calibration_keeps_no_activations_between_chunks(
    fp32: Path, images: Images, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    kept: list[int] = []

    def watched(*args: Any, **options: Any) -> Any:
        calibrator = create_calibrator(*args, **options)
        collect = calibrator.collect_data

        def collect_data(reader: Any) -> None:
            collect(reader)
            kept.append(len(calibrator.intermediate_outputs))

        calibrator.collect_data = collect_data
        return calibrator

    monkeypatch.setattr(calibration, "create_calibrator", watched)
    ranges(fp32, images, method=method, chunk=8)
    assert kept == [0] * 8


def test_calibration_memory_does_not_grow_with_the_images(fp32: Path, images: Images) -> None:
    many = np.tile(images, (4, 1, 1, 1))

    def peak(count: int, chunk: int) -> int:
        tracemalloc.start()
        ranges(fp32, many[:count], method="percentile", chunk=chunk)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(64, 64)  # imports and caches
    assert peak(256, 64) < 1.2 * peak(64, 64)
    assert peak(256, 256) > 1.5 * peak(256, 64)  # so it would be seen


def test_fixed_batch_models_are_calibrated_one_image_at_a_time(
    net: Any, write: Write, fp32: Path, images: Images, tmp_path: Path
) -> None:
    single = write(net, tmp_path / "single.onnx", dynamic_batch=False)
    for method in METHODS:
        one, many = (ranges(path, images[:8], method=method, chunk=8) for path in (single, fp32))
        assert one["images"] == pytest.approx(many["images"])
