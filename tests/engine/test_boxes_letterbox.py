"""Pictures scaled into a square as Pillow scales them, and boxes back."""

import numpy as np
import pytest
from PIL import Image

from kdedge.engine.boxes_letterbox import fitted, letterbox, resize, unletterbox


@pytest.mark.parametrize(
    ("given", "wanted"), [((48, 64), (24, 32)), ((37, 51), (100, 138)), ((301, 97), (33, 11)), ((5, 400), (1, 64))]
)
@pytest.mark.oracle
def test_resize_is_pillows_within_one_level(given, wanted):
    picture = np.random.default_rng(0).integers(0, 256, (*given, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(picture).resize(wanted[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resize(picture, *wanted).astype(int) - theirs).max() <= 1


def test_resize_by_hand():
    row = np.array([[[0], [100], [200], [40]]], np.uint8)
    # of four old pixels the two nearest weigh 3 each and the two outer ones 1, those beyond the border nothing
    assert resize(row, 1, 2)[0, :, 0].tolist() == [round((3 * 0 + 3 * 100 + 200) / 7), round((100 + 3 * 200 + 120) / 7)]


def test_letterbox_pads_right_and_below_with_gray():
    wide = np.full((2, 4, 3), 7, np.uint8)
    square = letterbox(wide, 8)
    assert square.shape == (8, 8, 3)
    assert (square[:4] == 7).all()
    assert (square[4:] == 114).all()
    high = letterbox(wide.transpose(1, 0, 2), 8)
    assert (high[:, :4] == 7).all()
    assert (high[:, 4:] == 114).all()


def test_letterbox_leaves_a_picture_of_the_size_alone():
    picture = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    assert (letterbox(picture, 6)[:, :4] == picture).all()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((480, 640), (240, 320)), ((1, 1000), (1, 320)), ((99, 33), (320, 107)), ((3, 3), (320, 320))],
)
def test_fitted_keeps_the_proportions(shape, expected):
    assert fitted(*shape, 320) == expected


def test_unletterbox_gives_the_pictures_own_pixels_and_stays_inside():
    boxes = np.array([[10, 20, 30, 40], [-5, 0, 200, 100]], np.float32)
    # 200 x 100 in a square of 100: half the size, so twice the pixels
    assert unletterbox(boxes, 100, 200, 100).tolist() == [[20, 40, 60, 80], [0, 0, 200, 100]]


def test_unletterbox_of_no_boxes_is_empty():
    assert unletterbox(np.zeros((0, 4), np.float32), 5, 5, 10).shape == (0, 4)
