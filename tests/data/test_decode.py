import io

import numpy as np
import pytest
import torch
from PIL import Image

from kdedge.core.errors import DataError
from kdedge.core.recipe import Augment
from kdedge.data.decode import decode, eval_view, train_view

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.mark.parametrize(("mode", "red"), [("L", 77), ("P", 77), ("RGBA", 77), ("1", 255)])
def test_decode_turns_every_kind_of_image_into_rgb(mode, red, tmp_path):
    Image.new("L", (4, 3), 77 if mode != "1" else 255).convert(mode).save(tmp_path / "image.png")
    image = decode(tmp_path / "image.png")
    assert (image.mode, image.size) == ("RGB", (4, 3))
    assert image.getpixel((0, 0)) == (red, red, red)


def test_decode_names_the_file_whatever_is_wrong_with_it(tmp_path):
    random, path, broken = np.random.default_rng(0), tmp_path / "image", 0
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(PIXELS).save(buffer, kind)
        for _ in range(40):
            content = bytearray(buffer.getvalue())
            for place in random.integers(0, len(content), 8):
                content[place] = random.integers(256)
            path.write_bytes(content[: random.integers(len(content) + 1)])
            try:
                decode(path)
            except DataError as error:
                assert error.what.startswith(str(path))  # noqa: PT017
                broken += 1
    assert broken > 100  # most of the 200


def test_eval_view_is_the_center_of_the_image_resized_to_256_224ths():
    view = eval_view(14)(Image.fromarray(PIXELS))  # 14 * 256 / 224 = 16: not resized, one pixel off on each side
    assert view.equal(torch.from_numpy(PIXELS[1:15, 1:15].copy()).permute(2, 0, 1))


def test_train_view_of_the_whole_image_is_the_image_itself():
    torch.manual_seed(0)
    view = train_view(16, Augment(crop_scale=(1.0, 1.0)))
    image = Image.fromarray(PIXELS)
    views = [view(image) for _ in range(8)]
    whole = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)
    assert any(view.equal(whole) for view in views)  # a crop of other proportions does not fit, a square one does
    assert all(view.shape == (3, 16, 16) for view in views)


def test_train_view_mirrors_only_when_asked():
    torch.manual_seed(0)
    image = Image.fromarray(np.repeat(np.arange(16, dtype=np.uint8)[None, :, None] * 16, 16, 0).repeat(3, 2))
    for flip, sides in ((False, {True}), (True, {True, False})):
        rows = [train_view(8, Augment(flip=flip))(image)[0, 0].int() for _ in range(20)]
        assert {bool(row[-1] > row[0]) for row in rows} == sides


def test_train_view_refuses_an_empty_range_of_areas():
    with pytest.raises(DataError, match=r"crop_scale is empty: 1\.0 is above 0\.5"):
        train_view(8, Augment(crop_scale=(1.0, 0.5)))
