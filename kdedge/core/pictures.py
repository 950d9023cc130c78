"""Picture files of every kind and quality, read with Pillow."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from PIL import Image, ImageOps

from kdedge.core.errors import DataError

CORRUPT = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for the various ways a file can be broken."""
DEEP = ("I", "F")
"""Kinds of 32 bits a pixel; those of 16 bits begin with the first as well."""


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Raises DataError, which names the file, when there is no picture, or when the block finds it broken."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise DataError(f"{path} is not there", "there is no such file", f"ls {path.parent}") from None
    except CORRUPT as error:
        raise DataError(
            f"{path} is not an image that can be decoded", str(error), f"rm {path}   (or replace it)"
        ) from None


def read_picture(path: Path) -> Image.Image:
    """The picture in RGB, upright as its EXIF says; transparency is dropped, and 16 bits become 8.

    Raises:
        DataError: no picture, a broken one, or one whose values have no known range.
    """
    with opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if not upright.mode.startswith(DEEP):
            return upright.convert("RGB")
        if upright.mode in DEEP and not within_16_bits(upright):
            why = f"its pixels are of Pillow's kind {upright.mode}, whose black and white nobody knows"
            raise DataError(f"{path} cannot be shown to a model", why, "save it with 8 or 16 bits a pixel")
        return upright.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")


def within_16_bits(image: Image.Image) -> bool:
    """Whether whole numbers of 32 bits hold no more than 16 do, as some readers give a PNG of 16."""
    low, high = cast("tuple[int, int]", image.getextrema())
    return image.mode == "I" and 0 <= low <= high < 2**16
