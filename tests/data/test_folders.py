import shutil

import pytest
import torch
from PIL import Image

from kdedge.core.errors import DataError
from kdedge.core.recipe import Augment, Data
from kdedge.data.build import IMAGENET, build_data
from kdedge.data.sets import FolderSet


def spec(folder, **changes):
    return Data(name="imagefolder", root=str(folder), **({"validation": 0.25} | changes))


def test_imagefolder_lists_one_file_of_each_class_in_turn(folder):
    dataset = build_data(spec(folder), seed=0)
    paths = dict(zip(dataset.train.indices.tolist(), dataset.train.paths, strict=True))
    paths |= dict(zip(dataset.validation.indices.tolist(), dataset.validation.paths, strict=True))
    expected = [folder / "train" / name / f"{number}.png" for number in range(6) for name in ("cat", "dog")]
    assert [paths[index] for index in range(12)] == expected
    assert dataset.test.labels.tolist() == [0, 1, 0, 1]
    assert dataset.labels == ("cat", "dog")
    assert len(dataset.validation) == 3


def test_imagefolder_uses_the_statistics_of_imagenet_and_224_pixels(folder):
    dataset = build_data(spec(folder), seed=0)
    assert dataset.normalize == IMAGENET
    assert dataset.image_shape == (3, 224, 224)
    assert build_data(spec(folder, image_size=64), seed=0).image_shape == (3, 64, 64)


def test_imagefolder_tests_on_val_when_there_is_no_test_folder(folder):
    (folder / "test").rename(folder / "val")
    assert build_data(spec(folder), seed=0).test.paths[0] == folder / "val" / "cat" / "0.png"


def test_imagefolder_finds_images_at_any_depth_and_skips_other_files(folder):
    (folder / "test" / "cat" / "more").mkdir()
    Image.new("L", (9, 9)).save(folder / "test" / "cat" / "more" / "7.JPG", "JPEG")
    (folder / "test" / "cat" / "notes.txt").write_text("a cat")
    paths = build_data(spec(folder), seed=0).test.paths
    assert [path.name for path in paths if path.parts[-2] != "dog"] == ["0.png", "1.png", "7.JPG"]


def test_folder_set_samples_its_first_image(folder):
    sample = build_data(spec(folder, image_size=8), seed=0).test.sample()
    assert (tuple(sample.shape), sample.dtype) == ((1, 3, 8, 8), torch.uint8)


def empty_class(folder):
    for path in (folder / "train" / "dog").iterdir():
        path.unlink()


def no_classes(folder):
    for path in (folder / "train").iterdir():
        shutil.rmtree(path)


def file_for_a_folder(folder):
    shutil.rmtree(folder / "train")
    (folder / "train").touch()


BAD = {
    "no test folder": (lambda root: shutil.rmtree(root / "test"), "has neither test/ nor val/"),
    "empty class": (empty_class, "train/dog has no images"),
    "no class folders": (no_classes, "train has no class folders"),
    "class only in train": (lambda root: (root / "train" / "eel").mkdir(), "test has no folder 'eel': .*train has eel"),
    "class only in test": (lambda root: shutil.rmtree(root / "train" / "cat"), "train has no folder 'cat'"),
    "file for a folder": (file_for_a_folder, "train cannot be read: Not a directory"),
}


@pytest.mark.parametrize("case", BAD)
def test_imagefolder_names_the_folder_that_is_wrong(case, folder):
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        build_data(spec(folder), seed=0)
    assert caught.value.what.startswith(str(folder))
    assert caught.value.fix


def test_imagefolder_refuses_padding_that_it_would_not_apply(folder):
    with pytest.raises(DataError, match=r"data\.augment\.crop_padding is for sets in memory"):
        build_data(spec(folder, augment=Augment(crop_padding=4)), seed=0)


def test_subset_keeps_the_positions_in_the_full_set(folder):
    whole = build_data(spec(folder), seed=0).test
    part = whole.subset(torch.tensor([3, 0])).subset(torch.tensor([0]))
    assert isinstance(part, FolderSet)
    assert (part.paths, part.labels.tolist(), part.indices.tolist()) == ((whole.paths[3],), [1], [3])
