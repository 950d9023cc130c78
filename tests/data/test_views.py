"""Fixed views: an image's follows from its index and the view's number, and from nothing else."""

import pytest
import torch

from kdedge.core.recipe import Augment, Data
from kdedge.data.build import build_data
from kdedge.data.loader import train_batches, view_batches
from kdedge.data.sets import ImageSet

CPU = torch.device("cpu")
MOVING = Augment(crop_padding=2, flip=True, views=3)


def image_set(count):
    images = torch.randint(256, (count, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(images, torch.zeros(count, dtype=torch.int64), torch.arange(count))


def by_index(batches, epoch):
    """{index: image} of an epoch."""
    return {
        index: image
        for batch in batches.epoch(epoch)
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True)
    }


def test_views_are_the_same_whatever_the_seed_the_order_and_the_part_of_the_set():
    whole = image_set(64)
    part = whole.subset(torch.arange(0, 40, 2))
    views = [by_index(view_batches(whole, MOVING, 10, CPU), view) for view in range(3)]
    for images, seed in ((whole, 1), (part, 2)):
        for epoch in (0, 1, 2, 3, 7):
            found = by_index(train_batches(images, MOVING, 4, seed, CPU), epoch)
            assert len(found) == len(images)
            assert all(image.equal(views[epoch % 3][index]) for index, image in found.items())


def test_views_differ_from_each_other():
    views = [by_index(view_batches(image_set(64), MOVING, 64, CPU), view) for view in range(3)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        alike = sum(views[one][index].equal(views[other][index]) for index in range(64))
        assert alike < 8  # 1 in 50 draws the same offsets and side again


def test_views_leave_the_order_of_an_epoch_as_it_is():
    drawn = Augment(crop_padding=2, flip=True)
    orders = [
        torch.cat([batch.indices for batch in train_batches(image_set(64), augment, 8, 0, CPU).epoch(5)])
        for augment in (MOVING, drawn)
    ]
    assert orders[0].equal(orders[1])


@pytest.mark.parametrize("augment", [Augment(views=2), Augment(views=2, flip=True)])
def test_views_of_image_files_are_the_same_whatever_the_seed(folder, augment):
    part = build_data(Data(name="imagefolder", root=str(folder), image_size=8, validation=0.1), seed=0).train
    views = [by_index(view_batches(part, augment, 4, CPU), view) for view in range(2)]
    assert not all(views[0][index].equal(views[1][index]) for index in views[0])
    for seed, epoch in ((1, 0), (2, 3)):
        found = by_index(train_batches(part, augment, 2, seed, CPU), epoch)
        assert all(image.equal(views[epoch % 2][index]) for index, image in found.items())
