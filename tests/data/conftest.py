"""Small data sets on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NAMES = ("cat", "dog")


@pytest.fixture
def arrays() -> dict[str, Any]:
    """A sound set: 40 training and 10 test images of 6 x 5 pixels in two classes."""
    random = np.random.default_rng(0)
    return {
        "train_images": random.integers(0, 256, (40, 6, 5, 3), np.uint8),
        "train_labels": np.arange(40) % 2,
        "test_images": random.integers(0, 256, (10, 6, 5, 3), np.uint8),
        "test_labels": np.arange(10) % 2,
        "names": np.array(NAMES),
    }


@pytest.fixture
def archive(tmp_path: Path, arrays: dict[str, Any]) -> Callable[..., Path]:
    """Writes the sound set with some arrays replaced, or left out where the replacement is None."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "set.npz"
        np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound image folder: 6 training images and 2 test images of each class, 20 x 16 pixels, no two alike."""
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in NAMES:
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (16, 20, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    return tmp_path
