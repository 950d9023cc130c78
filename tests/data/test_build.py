import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data, Normalize
from kdedge.data.build import build_data, carve
from kdedge.data.sets import ImageSet


def spec(path, **changes):
    return Data(name="arrays", root=str(path), **changes)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=120), share=st.floats(0.01, 0.99), seed=st.integers(0, 99)
)
def test_carve_takes_the_share_of_each_class(labels, share, seed):
    labels = np.array(labels)
    stay, aside = carve(labels, share, seed)
    assert sorted([*stay, *aside]) == list(range(len(labels)))
    assert list(stay) == sorted(stay)
    assert len(aside) == np.rint(len(labels) * share)
    for label in set(labels):
        assert abs((labels[aside] == label).sum() - share * (labels == label).sum()) <= 1


def test_carve_depends_on_the_seed_alone():
    labels = np.arange(200) % 4
    assert (carve(labels, 0.1, 5)[1] == carve(labels, 0.1, 5)[1]).all()
    assert (carve(labels, 0.1, 5)[1] != carve(labels, 0.1, 6)[1]).any()


def test_build_data_carves_validation_out_of_train(archive, arrays):
    dataset = build_data(spec(archive(), validation=0.2), seed=3)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (32, 8, 10)
    assert dataset.validation.labels.bincount().tolist() == [4, 4]
    for part in (dataset.train, dataset.validation):
        assert (part.images.permute(0, 2, 3, 1).numpy() == arrays["train_images"][part.indices]).all()
    again, other = (build_data(spec(archive(), validation=0.2), seed=seed).validation.indices for seed in (3, 4))
    assert again.equal(dataset.validation.indices)
    assert not other.equal(again)


def test_build_data_limits_before_it_carves(archive):
    dataset = build_data(spec(archive(), train_limit=20, validation=0.2), seed=0)
    assert sorted([*dataset.train.indices.tolist(), *dataset.validation.indices.tolist()]) == list(range(20))
    assert len(dataset.validation) == 4


def test_build_data_takes_a_limit_above_the_number_of_images(archive):
    assert len(build_data(spec(archive(), train_limit=1000), seed=0).train) == 36


def test_statistics_are_those_of_the_whole_training_set(archive, arrays):
    pixels = arrays["train_images"].reshape(-1, 3) / 255
    for changes in ({}, {"train_limit": 10}, {"validation": 0.5}):
        found = build_data(spec(archive(), **changes), seed=0).normalize
        assert found.mean == pytest.approx(pixels.mean(0), rel=1e-12)
        assert found.std == pytest.approx(pixels.std(0), rel=1e-12)


def test_statistics_by_hand_over_more_than_one_chunk(tmp_path):
    images = np.zeros((1500, 2, 2), np.uint8)
    images[:750] = 51  # a fifth of 255, in half of the images: mean 0.1, deviation 0.1
    labels = np.arange(1500) % 2
    path = tmp_path / "set.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels, names=["a", "b"])
    found = build_data(spec(path), seed=0).normalize
    assert (*found.mean, *found.std) == pytest.approx((0.1, 0.1), rel=1e-12)


def test_build_data_takes_the_recipes_normalization(archive):
    given = Normalize(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert build_data(spec(archive(), normalize=given), seed=0).normalize == given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"normalize": Normalize(mean=(0.5,), std=(0.5,))},
            "data.normalize is for 1 channels: the images of arrays have 3",
        ),
        ({"image_size": 8}, "data.image_size is 8: the images of arrays are 5x6"),
        ({"train_limit": 1}, "data.train_limit 1 with data.validation 0.1 leaves none of class 'dog'"),
        ({"validation": 0.97}, "^data.validation 0.97 leaves none of class 'dog' to train on: .* 1 are left\n  lower"),
        ({"validation": 0.01}, "data.validation 0.01 leaves no validation image"),
    ],
)
def test_build_data_refuses_options_that_do_not_fit_the_set(changes, message, archive):
    with pytest.raises(DataError, match=message) as caught:
        build_data(spec(archive(), **changes), seed=0)
    assert caught.value.fix


def test_build_data_takes_an_image_size_that_is_the_sets_own():
    assert build_data(Data(name="digits", image_size=8), seed=0).image_shape == (1, 8, 8)


def test_build_data_refuses_a_channel_that_never_changes(archive, arrays):
    images = arrays["train_images"].copy()
    images[..., 1] = 9
    with pytest.raises(DataError, match="channel 1 has one value in every training image"):
        build_data(spec(archive(train_images=images)), seed=0)
    assert build_data(spec(archive(train_images=images), normalize=Normalize(mean=(0, 0, 0), std=(1, 1, 1))), seed=0)


def test_subset_keeps_the_positions_in_the_full_set():
    whole = ImageSet(
        torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1), torch.tensor([0, 1, 0, 1]), torch.arange(4)
    )
    part = whole.subset(torch.tensor([3, 1])).subset(torch.tensor([1, 0]))
    assert part.indices.tolist() == part.images.flatten().tolist() == [1, 3]
    assert len(part) == 2
    assert part.sample().tolist() == [[[[1]]]]


PUBLISHED = {
    "cifar10": (
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        1e-3,
    ),  # three fifths of the images may be all there is
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 1e-4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_images_have_the_published_statistics(name, needs):
    root = Path(os.environ.get("KDEDGE_DATA", "none"))
    needs((root / f"{name}.npz").exists(), f"set KDEDGE_DATA to a folder with {name}.npz")
    dataset = build_data(Data(name=name, root=str(root)), seed=0)
    mean, std, tolerance = PUBLISHED[name]
    assert dataset.normalize.mean == pytest.approx(mean, abs=tolerance)
    assert dataset.normalize.std == pytest.approx(std, abs=tolerance)
    assert dataset.test.labels.bincount().tolist() == [10000 // len(dataset.labels)] * len(dataset.labels)
