from pathlib import Path

import numpy as np
import pytest
import torch
from boxed import write_voc

from kdedge.core.deployment import Export
from kdedge.core.recipe import Data
from kdedge.data import annotations
from kdedge.data.build import build_data
from kdedge.export.arrays import read_arrays
from kdedge.pipeline import arrays
from kdedge.pipeline.arrays import spread, write_arrays, write_validation


@pytest.mark.parametrize(
    ("available", "wanted", "by_hand"),
    [(5, 5, [0, 1, 2, 3, 4]), (3, 10, [0, 1, 2]), (9, 3, [0, 4, 8]), (9, 1, [0]), (11, 2, [0, 10])],
)
def test_spread_takes_evenly_from_first_to_last(available: int, wanted: int, by_hand: list[int]) -> None:
    assert list(spread(available, wanted)) == by_hand


def test_arrays_are_the_images_as_the_model_takes_them(tmp_path: Path) -> None:
    dataset = build_data(Data(name="digits"), 0)
    names = write_arrays(dataset, Export.model_validate({"calibration": {"images": 40}}), tmp_path / "arrays")
    assert names == ["arrays/calibration.npz", "arrays/eval.npz"]
    kept = read_arrays(tmp_path / "arrays/eval.npz")
    pixels = dataset.test.images.numpy().astype(np.float64)
    mean, std = dataset.normalize.mean[0], dataset.normalize.std[0]
    np.testing.assert_allclose(kept.images, (pixels / 255 - mean) / std, rtol=1e-4, atol=1e-5)
    assert kept.images.dtype == np.float32
    assert np.array_equal(kept.labels, dataset.test.labels.numpy())
    assert np.array_equal(kept.ids, np.arange(360))


def test_calibration_is_on_training_images(tmp_path: Path) -> None:
    dataset = build_data(Data(name="digits"), 0)
    write_arrays(dataset, Export.model_validate({"calibration": {"images": 40}, "preprocess": True}), tmp_path)
    kept = read_arrays(tmp_path / "calibration.npz")
    assert len(kept.images) == 40
    chosen = dataset.train.images[torch.as_tensor(kept.ids)]
    assert np.array_equal(kept.images, chosen.permute(0, 2, 3, 1).numpy())


def test_arrays_are_pixels_when_the_graph_prepares_them(tmp_path: Path) -> None:
    dataset = build_data(Data(name="digits"), 0)
    write_arrays(dataset, Export(preprocess=True), tmp_path)
    images = read_arrays(tmp_path / "eval.npz").images
    assert (images.dtype, images.shape) == (np.uint8, (360, 8, 8, 1))
    assert np.array_equal(images[..., 0], dataset.test.images[:, 0].numpy())


def test_evaluation_of_a_large_set_is_on_an_even_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LIMIT", 4 * 64 * 100)  # one hundred images of 64 floats
    dataset = build_data(Data(name="digits"), 0)
    write_arrays(dataset, Export(), tmp_path)
    kept = read_arrays(tmp_path / "eval.npz")
    assert len(kept.images) == 100
    assert (kept.ids[0], kept.ids[-1]) == (0, 359)
    assert np.array_equal(kept.labels, dataset.test.labels.numpy()[kept.ids])


@pytest.mark.parametrize("memory", [2**31, 0], ids=["in memory", "in files"])
def test_arrays_of_pictures_have_their_boxes_and_by_what_they_were_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    """Pictures of 16 x 20 pixels, twice as large in squares of 40; VOC counts pixels from 1."""
    monkeypatch.setattr(annotations, "IN_MEMORY", memory)
    root = write_voc(tmp_path / "set")
    dataset = build_data(Data(name="voc", root=str(root), image_size=40, workers=0), 0)
    write_arrays(dataset, Export(preprocess=True), tmp_path)
    kept = read_arrays(tmp_path / "eval.npz")
    assert (kept.images.dtype, kept.images.shape, kept.labels.dtype) == (np.uint8, (1, 40, 40, 3), np.float32)
    assert kept.labels.tolist() == [[[0, 2, 2, 16, 16], [1, 16, 16, 36, 28]]]
    assert kept.scales is not None
    assert kept.scales.tolist() == [2]
    calibration = read_arrays(tmp_path / "calibration.npz")
    assert calibration.labels.shape == (4, 2, 5)
    assert calibration.labels[2].tolist() == [[-1, 0, 0, 0, 0]] * 2
    write_validation(dataset, False, tmp_path / "validation.npz")
    assert read_arrays(tmp_path / "validation.npz").labels[0, 0].tolist() == [1, 0, 0, 40, 32]


def test_first_images_keep_what_belongs_to_them(tmp_path: Path) -> None:
    dataset = build_data(Data(name="digits"), 0)
    write_arrays(dataset, Export(), tmp_path)
    kept = read_arrays(tmp_path / "eval.npz")
    first = kept.first(3)
    assert [len(column) for column in (first.images, first.labels, first.ids)] == [3, 3, 3]
    assert first.scales is kept.scales is None
    assert len(kept.first(None).images) == 360
