"""Pictures of every kind become RGB, upright, or are refused by name."""

import numpy as np
import pytest
from PIL import Image

from kdedge.core.errors import DataError
from kdedge.core.pictures import read_picture

RAMP = np.array([[0, 64], [128, 255]], np.uint8)


def read(path):
    picture = read_picture(path)
    assert picture.mode == "RGB"
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("LA", "png"), ("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("L", "tif")]
)
def test_gray_in_every_kind_is_gray(mode, suffix, tmp_path):
    Image.fromarray(RAMP).convert(mode).save(tmp_path / f"p.{suffix}")
    assert (read(tmp_path / f"p.{suffix}") == RAMP[..., None]).all()


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (2, 2), (0, 255, 255, 0)).save(tmp_path / "p.tif")
    assert (read(tmp_path / "p.tif") == (255, 0, 0)).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_eight(suffix, tmp_path):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / f"p.{suffix}")
    assert (read(tmp_path / f"p.{suffix}") == RAMP[..., None]).all()


def test_whole_numbers_of_32_bits_count_as_16_where_they_fit(tmp_path):
    Image.fromarray(RAMP.astype(np.int32) * 257).save(tmp_path / "p.tif")
    assert (read(tmp_path / "p.tif") == RAMP[..., None]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_known_range_are_refused(dtype, tmp_path):
    Image.fromarray(np.array([[0, 1e6]], dtype)).save(tmp_path / "p.tif")
    with pytest.raises(DataError, match=r"p\.tif cannot be shown to a model"):
        read_picture(tmp_path / "p.tif")


def test_picture_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees to the right
    picture = Image.new("RGB", (3, 2), "black")
    picture.putpixel((0, 0), (255, 0, 0))
    picture.save(tmp_path / "p.png", exif=exif)
    got = read(tmp_path / "p.png")
    assert got.shape == (3, 2, 3)
    assert got[0, 1].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0 cut off"])
def test_broken_picture_is_named(content, tmp_path):
    (tmp_path / "p.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"p\.jpg is not an image that can be decoded"):
        read_picture(tmp_path / "p.jpg")


def test_cut_off_picture_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "p.png")
    (tmp_path / "p.png").write_bytes((tmp_path / "p.png").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"p\.png is not an image that can be decoded"):
        read_picture(tmp_path / "p.png")


def test_missing_picture_is_named(tmp_path):
    with pytest.raises(DataError, match=r"p\.png is not there"):
        read_picture(tmp_path / "p.png")
