import multiprocessing

import pytest
import torch

from kdedge.core.errors import DataError
from kdedge.core.recipe import Augment, Data, Normalize
from kdedge.data import loader
from kdedge.data.build import build_data
from kdedge.data.loader import Batch, Normalizer, eval_batches, train_batches
from kdedge.data.sets import ImageSet

CPU = torch.device("cpu")
PLAIN, MOVING = Augment(), Augment(crop_padding=2, flip=True)


def image_set(count):
    """Images that differ from one another and labels 0..3; indices count from 1000, as those of a part may."""
    images = torch.randint(256, (count, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(images, torch.arange(count) % 4, torch.arange(1000, 1000 + count))


def whole(batches, number):
    """An epoch as one batch."""
    return Batch(*(torch.cat(column) for column in zip(*batches.epoch(number), strict=True)))


def same(one, other):
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


def failure(batches):
    """What an epoch ends with, without the frames that would keep the workers alive."""
    try:
        whole(batches, 0)
    except DataError as error:
        return error.with_traceback(None)
    raise AssertionError("nothing is wrong with it")


@pytest.fixture
def files(folder):
    return build_data(Data(name="imagefolder", root=str(folder), image_size=8, validation=0.1), seed=0).train


@pytest.mark.parametrize(("count", "batches", "size"), [(100, 6, 16), (96, 6, 16), (16, 1, 16), (10, 1, 10)])
def test_train_batches_are_full_unless_the_set_is_smaller(count, batches, size):
    found = train_batches(image_set(count), PLAIN, 16, 0, CPU)
    assert len(found) == batches
    assert [len(batch.labels) for batch in found.epoch(0)] == [size] * batches


def test_train_batches_hold_each_image_once_with_its_own_label():
    part = image_set(64)
    epoch = whole(train_batches(part, PLAIN, 16, 0, CPU), 0)
    rows = epoch.indices - 1000
    assert rows.sort().values.equal(torch.arange(64))
    assert not rows.equal(torch.arange(64))
    assert epoch.images.equal(part.images[rows])
    assert epoch.labels.equal(part.labels[rows])
    assert (epoch.images.dtype, epoch.labels.dtype) == (torch.uint8, torch.int64)


def test_epochs_depend_on_their_number_and_the_seed_alone():
    part = image_set(64)
    first, again, other = (train_batches(part, MOVING, 16, seed, CPU) for seed in (1, 1, 2))
    torch.manual_seed(3)
    expected = whole(first, 5)
    torch.manual_seed(4)
    assert same(whole(again, 5), expected)
    assert not whole(again, 6).indices.equal(expected.indices)
    assert not whole(other, 5).indices.equal(expected.indices)


def test_augmentation_changes_from_epoch_to_epoch():
    batches = train_batches(image_set(64), MOVING, 64, 0, CPU)
    by_image = [epoch.images[epoch.indices.argsort()] for epoch in (whole(batches, 0), whole(batches, 1))]
    moved = (by_image[0] != by_image[1]).flatten(1).any(1).sum()
    assert moved > 55  # 1 in 50 draws the same offsets and side again


def test_train_batches_crop_and_mirror_as_drawn_for_each_image():
    part = image_set(8)
    epoch = whole(train_batches(part, MOVING, 8, 0, CPU), 0)
    for image, index in zip(epoch.images, epoch.indices.tolist(), strict=True):
        padded = torch.nn.functional.pad(part.images[index - 1000], [2] * 4)
        views = [padded[:, y : y + 6, x : x + 6] for y in range(5) for x in range(5)]
        assert any(image.equal(view) or image.equal(view.flip(2)) for view in views)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_get_equal_shares_with_nothing_twice(world):
    part = image_set(100)
    shares = [whole(train_batches(part, MOVING, 8, 0, CPU, rank=rank, world=world), 2) for rank in range(world)]
    sizes = {len(share.indices) for share in shares}
    assert sizes == {100 // world // 8 * 8}
    together = torch.cat([share.indices for share in shares])
    assert len(together.unique()) == len(together)


def test_an_image_is_augmented_alike_on_whichever_rank_it_falls():
    part = image_set(64)
    alone = whole(train_batches(part, MOVING, 16, 0, CPU), 0)
    images = dict(zip(alone.indices.tolist(), alone.images, strict=True))
    share = whole(train_batches(part, MOVING, 16, 0, CPU, rank=1, world=2), 0)
    assert all(image.equal(images[index]) for index, image in zip(share.indices.tolist(), share.images, strict=True))


def test_train_batches_refuses_more_devices_than_images():
    with pytest.raises(DataError, match="2 training images for 3 devices"):
        train_batches(image_set(2), PLAIN, 1, 0, CPU, world=3)


def test_eval_batches_hold_every_image_in_order_as_it_is():
    part = image_set(20)
    batches = eval_batches(part, 8, CPU)
    assert [len(batch.labels) for batch in batches.epoch(0)] == [8, 8, 4]
    assert len(batches) == 3
    assert same(whole(batches, 0), (part.images, part.labels, part.indices))


def test_loading_leaves_the_global_random_state(files):
    before = torch.get_rng_state()
    for part in (image_set(32), files):
        for workers in (0, 1):
            whole(train_batches(part, Augment(flip=True), 4, 0, CPU, workers), 0)
            whole(eval_batches(part, 4, CPU, workers), 0)
    assert torch.get_rng_state().equal(before)


def test_a_folders_epoch_does_not_depend_on_the_number_of_workers(files):
    alone, one, two = (train_batches(files, Augment(flip=True), 4, 7, CPU, workers) for workers in (0, 1, 2))
    for number in (0, 1):
        expected = whole(alone, number)
        assert same(whole(one, number), expected)
        assert same(whole(two, number), expected)
        assert expected.images.shape == (8, 3, 8, 8)
        assert expected.labels.equal(torch.tensor([index % 2 for index in expected.indices.tolist()]))
    assert same(whole(two, 0), whole(alone, 0))  # an earlier epoch, by workers that have seen a later one


def test_a_folders_images_are_cropped_anew_in_every_epoch(files):
    batches = train_batches(files, Augment(), len(files), 0, CPU)
    one, other = (epoch.images[epoch.indices.argsort()] for epoch in (whole(batches, 0), whole(batches, 1)))
    assert (one != other).flatten(1).any(1).all()


def test_a_folders_image_is_cropped_alike_on_whichever_rank_it_falls(files):
    alone = whole(train_batches(files, Augment(), len(files), 0, CPU), 0)
    images = dict(zip(alone.indices.tolist(), alone.images, strict=True))
    shares = [whole(train_batches(files, Augment(), 2, 0, CPU, rank=rank, world=2), 0) for rank in range(2)]
    assert not set(shares[0].indices.tolist()) & set(shares[1].indices.tolist())
    for share in shares:
        assert all(
            image.equal(images[index]) for index, image in zip(share.indices.tolist(), share.images, strict=True)
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_was_left_early_does_not_spoil_the_next(workers, files):
    batches = train_batches(files, Augment(), 2, 0, CPU, workers)
    expected = whole(batches, 1)
    next(batches.epoch(0))
    assert same(whole(batches, 1), expected)


def test_a_folder_is_evaluated_in_order(files):
    epoch = whole(eval_batches(files, 4, CPU, workers=1), 0)
    assert epoch.indices.equal(files.indices)
    assert epoch.labels.equal(files.labels)
    assert epoch.images[:1].equal(files.sample())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [b"not an image", b""])
def test_a_broken_file_is_named_by_whoever_decodes_it(workers, content, files):
    files.paths[5].write_bytes(content)
    for batches in (train_batches(files, PLAIN, len(files), 0, CPU, workers), eval_batches(files, 4, CPU, workers)):
        error = failure(batches)
        assert error.what == f"{files.paths[5]} is not an image that can be decoded"
        assert error.why.startswith("cannot identify image file")


def test_workers_end_at_once_after_a_broken_file(files):
    files.paths[5].write_bytes(b"")
    batches = train_batches(files, PLAIN, len(files), 0, CPU, workers=1)
    failure(batches)
    assert multiprocessing.active_children()
    del batches  # a cycle would leave them to the garbage collector, and it would wait five seconds for each
    assert not multiprocessing.active_children()


def test_normalizer_by_hand():
    normalizer = Normalizer(Normalize(mean=(0.5, 0.2), std=(0.5, 0.4)))
    images = torch.tensor([[[[0, 255]], [[51, 255]]]], dtype=torch.uint8)
    found = normalizer(images)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([-1.0, 1.0, 0.0, 2.0], abs=1e-6)
    assert normalizer(images.float()).equal(found)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalizer_keeps_the_memory_format(memory_format):
    images = image_set(4).images.contiguous(memory_format=memory_format)
    found = Normalizer(Normalize(mean=(0.5,) * 3, std=(0.5,) * 3))(images)
    assert found.is_contiguous(memory_format=memory_format)


def test_normalizer_adds_nothing_to_the_weights():
    assert not Normalizer(Normalize(mean=(0.5,), std=(0.5,))).state_dict()


@pytest.mark.parametrize(("free", "fits"), [(2 * 108 * 10, True), (2 * 108 * 10 - 2, False)])
def test_a_set_stays_in_host_memory_when_it_takes_over_half_of_the_gpus(free, fits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**12))
    assert loader.fits(image_set(10).images, torch.device("cuda")) is fits  # 108 bytes an image
    assert loader.fits(image_set(10).images, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares the devices: run it on a machine with a CUDA GPU")
@pytest.mark.parametrize("resident", [True, False])
def test_epochs_are_the_same_on_a_gpu(resident, monkeypatch):
    part = image_set(64)
    expected = whole(train_batches(part, MOVING, 16, 0, CPU), 1)
    monkeypatch.setattr(loader, "fits", lambda images, device: resident)
    found = whole(train_batches(part, MOVING, 16, 0, torch.device("cuda")), 1)
    assert found.images.is_cuda
    assert same((column.cpu() for column in found), expected)
