"""Images in the page: brightness, size, and the kinds that data sets have."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from kdedge.core.recipe import Normalize
from kdedge.report.thumbnails import SIDE, Thumbnail, encoded, pixels, thumbnail

HALF = Normalize(mean=(0.5,), std=(0.25,))


def opened(found: Thumbnail) -> Image.Image:
    head, _, text = found.address.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_normalized_images_get_their_brightness_back() -> None:
    image = np.array([[[-2.0, 0.0, 2.0, 9.0, np.nan]]], np.float32)  # 0, half, 1, more than 1, none
    assert pixels(image, HALF).tolist() == [[0, 128, 255, 255, 0]]


def test_each_channel_has_its_own_statistics() -> None:
    image = np.zeros((3, 1, 1), np.float32)
    assert pixels(image, Normalize(mean=(0.0, 0.2, 1.0), std=(1, 1, 1))).tolist() == [[[0, 51, 255]]]


def test_images_of_bytes_stay_as_they_are() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert pixels(image, None).tolist() == image.tolist()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels_become_their_mean(channels: int) -> None:
    image = np.full((4, 4, channels), 10, np.uint8)
    image[0, 0, 0] = 20
    assert pixels(image, None)[0, 0] == 10 + 10 // channels
    assert opened(thumbnail(image, None)).mode == "L"


def test_large_images_are_scaled_down_and_small_ones_are_not_scaled() -> None:
    large = thumbnail(np.zeros((100, 200, 3), np.uint8), None)
    assert (opened(large).size, large.sharp) == ((SIDE, SIDE // 2), False)
    small = thumbnail(np.zeros((1, 8, 6), np.float32), HALF)
    assert (opened(small).size, small.sharp) == ((6, 8), True)


@pytest.mark.parametrize(("side", "form"), [(64, "jpeg"), (40, "png")])
def test_photo_is_a_jpeg_unless_its_pixels_are_shown(side: int, form: str) -> None:
    found = encoded(np.zeros((side, side, 3), np.uint8), 100, photo=True)
    assert found.address.startswith(f"data:image/{form};base64,")
    assert found.sharp == (form == "png")
