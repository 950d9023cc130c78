from pathlib import Path

import numpy as np
import pytest
import torch

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data
from kdedge.data.arrays import read_arrays
from kdedge.data.build import build_data

SPEC = Data(name="arrays")


def test_read_arrays_takes_channels_last_images(archive, arrays):
    splits = read_arrays(archive(), SPEC)
    assert splits.labels == ("cat", "dog")
    assert splits.train.image_shape == (3, 6, 5)
    assert splits.test.images[4, 2, 1, 3] == arrays["test_images"][4, 1, 3, 2]
    assert splits.train.images.permute(0, 2, 3, 1).numpy().tobytes() == arrays["train_images"].tobytes()
    assert splits.train.labels.tolist() == arrays["train_labels"].tolist()
    assert splits.test.indices.tolist() == list(range(10))
    assert splits.train.labels.dtype == splits.train.indices.dtype == torch.int64


def test_read_arrays_keeps_gray_images_in_one_channel(archive, arrays):
    gray = {key: arrays[key][..., 0] for key in ("train_images", "test_images")}
    splits = read_arrays(archive(**gray), SPEC)
    assert splits.train.image_shape == (1, 6, 5)
    assert splits.train.images[:, 0].numpy().tobytes() == gray["train_images"].tobytes()


def replaced(array, index, value):
    changed = np.array(array)
    changed[index] = value
    return changed


TRAIN, TEST = np.arange(40) % 2, np.arange(10) % 2
BAD = {
    "missing key": ({"test_labels": None}, "has no test_labels: it has train_images, train_labels, test_images, names"),
    "no names": ({"names": None}, "has no names"),
    "label too large": ({"train_labels": replaced(TRAIN, 7, 2)}, r"train_labels\[7\] is 2: there are 2 classes"),
    "negative label": ({"test_labels": replaced(TEST, 3, -1)}, r"test_labels\[3\] is -1"),
    "labels not integers": ({"train_labels": TRAIN.astype(float)}, r"train_labels is float64 of shape \(40,\)"),
    "labels one-hot": ({"train_labels": np.eye(2, dtype=int)[TRAIN]}, r"train_labels is int64 of shape \(40, 2\)"),
    "fewer labels": ({"train_labels": TRAIN[:39]}, "train_images has 40 entries, and 39 labels"),
    "class without images": ({"names": np.array(["cat", "dog", "eel"])}, "class 'eel' has no training images"),
    "float images": ({"train_images": np.zeros((40, 6, 5, 3))}, r"train_images is float64 of shape \(40, 6, 5, 3\)"),
    "channels first": ({"test_images": np.zeros((10, 3, 6, 5), np.uint8)}, r"test_images is uint8 of shape \(10, 3"),
    "flat images": ({"train_images": np.zeros((40, 90), np.uint8)}, r"train_images is uint8 of shape \(40, 90\)"),
    "sizes differ": (
        {"test_images": np.zeros((10, 6, 6, 3), np.uint8)},
        r"train images are \(3, 6, 5\) and test images \(3, 6, 6\)",
    ),
    "no images": (
        {"test_images": np.zeros((0, 6, 5, 3), np.uint8), "test_labels": TEST[:0]},
        "test_images.*: there are no images in it",
    ),
    "names not text": ({"names": np.array([1, 2])}, r"names is int64 of shape \(2,\)"),
    "pickled names": ({"names": np.array(["cat", None], dtype=object)}, "names cannot be read: Object arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_build_data_names_the_archive_and_what_is_wrong_with_it(case, archive):
    changes, message = BAD[case]
    path = archive(**changes)
    with pytest.raises(DataError, match=message) as caught:
        build_data(Data(name="arrays", root=str(path)), seed=0)
    assert caught.value.what.startswith(str(path))
    assert caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_build_data_refuses_an_archive_that_is_cut_off(share, archive):
    path = archive()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"set\.npz is not an \.npz archive: it is of another kind, or cut off"):
        build_data(Data(name="arrays", root=str(path)), seed=0)


def test_build_data_names_the_array_that_is_garbled(archive, arrays):
    path = archive()
    content = bytearray(path.read_bytes())
    start = content.find(arrays["test_images"].tobytes())
    assert start > 0
    content[start] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="test_images cannot be read: Bad CRC-32"):
        build_data(Data(name="arrays", root=str(path)), seed=0)


def test_build_data_refuses_a_single_array(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"is not an \.npz archive"):
        build_data(Data(name="arrays", root=str(tmp_path / "images.npy")), seed=0)


@pytest.mark.parametrize(
    "name", ["cifar10", "cifar100", "fashion_mnist", "imagefolder", "stl10", "svhn", "tiny_imagenet"]
)
def test_build_data_takes_an_archive_for_every_set(name, archive, tmp_path):
    archive().rename(tmp_path / f"{name}.npz")
    dataset = build_data(Data(name=name, root=str(tmp_path)), seed=0)
    assert (dataset.name, dataset.labels, len(dataset.test)) == (name, ("cat", "dog"), 10)


def test_build_data_says_why_a_set_cannot_be_read(tmp_path):
    (tmp_path / "cifar10.npz").mkdir()
    with pytest.raises(DataError, match=r"cifar10\.npz cannot be read: Is a directory") as caught:
        build_data(Data(name="cifar10", root=str(tmp_path)), seed=0)
    assert caught.value.fix == f"ls -ld {Path(tmp_path, 'cifar10.npz')}"
