import pytest
import torch

from kdedge.core.recipe import Augment
from kdedge.data.augment import Draws, apply, crop, draw, generator, mix

IMAGE = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3)


@pytest.mark.parametrize(
    ("top", "left", "by_hand"),
    [
        (1, 1, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (0, 0, [[0, 0, 0], [0, 1, 2], [0, 4, 5]]),
        (2, 2, [[5, 6, 0], [8, 9, 0], [0, 0, 0]]),
        (0, 2, [[0, 0, 0], [2, 3, 0], [5, 6, 0]]),
    ],
)
def test_crop_by_hand(top, left, by_hand):
    assert crop(IMAGE, torch.tensor([top]), torch.tensor([left]), 1)[0, 0].tolist() == by_hand


def test_crop_moves_each_image_and_all_of_its_channels_by_its_own_offsets():
    images = torch.randint(256, (5, 3, 6, 4), dtype=torch.uint8, generator=generator(0))
    top, left = torch.tensor([0, 4, 2, 1, 3]), torch.tensor([4, 0, 2, 3, 1])
    found = crop(images, top, left, 2)
    assert (found.shape, found.dtype) == (images.shape, torch.uint8)
    for image, cropped, row, column in zip(images, found, top.tolist(), left.tolist(), strict=True):
        padded = torch.zeros(3, 10, 8, dtype=torch.uint8)
        padded[:, 2:8, 2:6] = image
        assert cropped.equal(padded[:, row : row + 6, column : column + 4])


def test_apply_mirrors_the_images_drawn_for_it():
    images, still = IMAGE.repeat(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64)
    draws = Draws(still, still, torch.tensor([False, True]))
    assert apply(images, draws, Augment(flip=True))[:, 0].tolist() == [
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        [[3, 2, 1], [6, 5, 4], [9, 8, 7]],
    ]
    assert apply(images, draws, Augment(flip=False)).equal(images)


def test_apply_crops_before_it_mirrors():
    draws = Draws(torch.tensor([0]), torch.tensor([0]), torch.tensor([True]))
    found = apply(IMAGE, draws, Augment(crop_padding=1, flip=True))
    assert found[0, 0].tolist() == [[0, 0, 0], [2, 1, 0], [5, 4, 0]]


def test_draw_covers_every_offset_and_mirrors_half():
    draws = draw(9000, Augment(crop_padding=1, flip=True), generator(0))
    corners = torch.stack([draws.top, draws.left], 1).unique(dim=0, return_counts=True)
    assert corners[0].tolist() == [[top, left] for top in range(3) for left in range(3)]
    assert corners[1].min() > 850  # 1000 each, deviation 30
    assert 4250 < draws.mirrored.sum() < 4750  # 4500, deviation 47


def test_mix_tells_keys_apart():
    keys = [(seed, epoch) for seed in range(20) for epoch in range(20)] + [(1,), (1, 0, 1), (0, 1, 1)]
    assert len({mix(*key) for key in keys}) == len(keys)
    assert mix(3, 4) == mix(3, 4)
    assert 0 <= mix(0) < 2**63
