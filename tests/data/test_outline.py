import zipfile

import numpy as np
import pytest

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data
from kdedge.data.build import build_data
from kdedge.data.locate import LAYOUTS
from kdedge.data.outline import Outline, outline, stand_in


def built(spec):
    dataset = build_data(spec, seed=0)
    return Outline(len(dataset.labels), dataset.image_shape)


def test_outline_of_a_published_set_is_what_its_reader_gives():
    assert outline(Data(name="digits")) == built(Data(name="digits")) == Outline(10, (1, 8, 8))


def test_outline_of_an_archive_is_what_its_reader_gives(archive):
    spec = Data(name="arrays", root=str(archive()))
    assert outline(spec) == built(spec) == Outline(2, (3, 6, 5))


def test_outline_of_an_archive_of_gray_images_has_one_channel(archive, arrays):
    gray = {f"{part}_images": arrays[f"{part}_images"][..., 0] for part in ("train", "test")}
    assert outline(Data(name="arrays", root=str(archive(**gray)))) == Outline(2, (1, 6, 5))


@pytest.mark.parametrize("size", [None, 32])
def test_outline_of_a_folder_is_what_its_reader_gives(size, folder):
    spec = Data(name="imagefolder", root=str(folder), image_size=size)
    assert outline(spec) == built(spec) == Outline(2, (3, size or 224, size or 224))


def test_outline_reads_no_image(archive, arrays):
    """The pixels are missing: the archive's member ends after its header."""
    path = archive()
    with np.load(path) as whole:
        header = len(whole.zip.read("train_images.npy")) - arrays["train_images"].nbytes
        members = {name: whole.zip.read(name) for name in whole.zip.namelist()}
    members["train_images.npy"] = members["train_images.npy"][:header]
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    assert outline(Data(name="arrays", root=str(path))) == Outline(2, (3, 6, 5))


def test_outline_refuses_what_are_no_images(archive):
    with pytest.raises(DataError, match="train_images is uint8 of shape"):
        outline(Data(name="arrays", root=str(archive(train_images=np.zeros((4, 5), np.uint8)))))


def test_outline_says_how_to_get_a_set_that_is_missing(tmp_path):
    with pytest.raises(DataError, match="no cifar10 in"):
        outline(Data(name="cifar10", root=str(tmp_path)))


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.classes])
def test_layout_of_a_published_set_has_its_classes_and_shape(name):
    channels, height, width = LAYOUTS[name].shape
    assert LAYOUTS[name].classes >= 10
    assert channels in (1, 3)
    assert height == width >= 8


def test_stand_in_has_the_sets_shape_and_the_same_noise_every_time():
    one, two = (stand_in(Data(name="digits"), Outline(10, (1, 8, 8)), images=4) for _ in range(2))
    assert one.train.images.shape == (4, 1, 8, 8)
    assert (len(one.labels), one.image_shape) == (10, (1, 8, 8))
    assert one.train.images.equal(two.train.images)


def test_stand_in_with_boxes_has_one_on_all_images_but_the_last():
    found = stand_in(Data(name="voc"), Outline(2, (3, 8, 8)), images=3).train
    assert found.labels.tolist() == [[[0, 2, 2, 6, 6]], [[1, 2, 2, 6, 6]], [[-1, 0, 0, 0, 0]]]
    assert found.load(0)[0].equal(found.images[0])
    assert stand_in(Data(name="voc"), Outline(2, (3, 8, 8)), images=1).train.labels.tolist() == [[[-1, 0, 0, 0, 0]]]
