"""Batches of pictures with boxes: what moves with them, and how often each is drawn."""

import pytest
import torch
from boxed import write_voc

from kdedge.core.errors import DataError
from kdedge.core.recipe import Augment, Data
from kdedge.data import annotations
from kdedge.data.boxes import pack
from kdedge.data.build import build_data
from kdedge.data.loader import Batch, eval_batches, train_batches, view_batches
from kdedge.data.plans import Repeated, repeat_factors
from kdedge.data.sets import BoxFolder

CPU = torch.device("cpu")
MOVING = Augment(flip=True, zoom=(0.5, 2.0), iou_crop=True, color=0.3)


@pytest.fixture(params=["memory", "folder"])
def part(request, tmp_path, monkeypatch):
    if request.param == "folder":
        monkeypatch.setattr(annotations, "IN_MEMORY", 0)
    return build_data(Data(name="voc", root=str(write_voc(tmp_path)), image_size=40), seed=0).train


def whole(batches, number):
    """An epoch as one batch."""
    return Batch(*(torch.cat(column) for column in zip(*batches.epoch(number), strict=True)))


def same(one, other):
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


def by_index(batch):
    return {int(index): (image, target) for image, target, index in zip(*batch, strict=True)}


def test_eval_batches_hold_every_picture_in_order_with_its_boxes(part):
    epoch = whole(eval_batches(part, 3, CPU), 0)
    assert epoch.labels.equal(part.labels)
    assert epoch.indices.equal(part.indices)
    assert tuple(epoch.images.shape) == (4, 3, 40, 40)
    assert (epoch.images[:, :, 32:] == 114).all()


def test_train_batches_without_augmentation_hold_what_is_evaluated(part):
    evaluated = by_index(whole(eval_batches(part, 4, CPU), 0))
    trained = by_index(whole(train_batches(part, Augment(), 4, 0, CPU), 0))
    assert trained.keys() == evaluated.keys()
    assert all(same(trained[index], evaluated[index]) for index in evaluated)


def test_epochs_depend_on_their_number_and_the_seed_alone(part):
    first, again, other = (
        train_batches(part, MOVING, 2, seed, CPU, workers) for seed, workers in ((1, 0), (1, 1), (2, 0))
    )
    torch.manual_seed(3)
    expected, state = whole(first, 5), torch.get_rng_state()
    assert same(whole(again, 5), expected)
    assert torch.get_rng_state().equal(state)
    assert not whole(other, 5).images.equal(expected.images)
    assert not whole(first, 6).images.equal(expected.images)


def test_a_picture_is_moved_alike_on_whichever_rank_it_falls(part):
    alone = by_index(whole(train_batches(part, MOVING, 4, 0, CPU), 0))
    shares = [by_index(whole(train_batches(part, MOVING, 2, 0, CPU, rank=rank, world=2), 0)) for rank in range(2)]
    assert sorted([*shares[0], *shares[1]]) == [0, 1, 2, 3]
    assert all(same(item, alone[index]) for share in shares for index, item in share.items())


def test_fixed_views_come_round_again_with_their_boxes(part):
    augment = MOVING.model_copy(update={"views": 2})
    views = [by_index(whole(view_batches(part, augment, 4, CPU), view)) for view in range(2)]
    assert not same(views[0][1], views[1][1])
    for epoch, seed in ((0, 1), (1, 2), (2, 3)):
        found = by_index(whole(train_batches(part, augment, 2, seed, CPU), epoch))
        assert all(same(item, views[epoch % 2][index]) for index, item in found.items())


def test_a_broken_picture_is_named_by_whoever_decodes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(annotations, "IN_MEMORY", 0)
    part = build_data(Data(name="voc", root=str(write_voc(tmp_path)), image_size=40), seed=0).train
    assert isinstance(part, BoxFolder)
    part.paths[2].write_bytes(b"")
    with pytest.raises(DataError, match=r"c\.png is not an image that can be decoded"):
        whole(train_batches(part, Augment(), 2, 0, CPU), 0)


def test_repeat_factors_by_hand():
    """Class 0 is on 4 of 8 images, 1 on 2, 2 on 1; with t = 1/2 the factors of the classes are 1, sqrt 2 and 2."""
    present = [(0,), (0,), (0, 1), (0, 1, 2), (), (), (), ()]
    targets = pack([torch.tensor([[each, 0, 0, 1, 1] for each in there]).reshape(-1, 5) for there in present])
    assert repeat_factors(targets, 0.5).tolist() == pytest.approx([1, 1, 2**0.5, 2, 1, 1, 1, 1])
    assert repeat_factors(targets, 0.1).tolist() == [1] * 8


def test_repeat_factors_of_labels_by_hand():
    assert repeat_factors(torch.tensor([0, 0, 0, 1]), 1.0).tolist() == pytest.approx([(4 / 3) ** 0.5] * 3 + [2])


def test_repeated_draws_by_factor_and_as_many_as_ever():
    """Of 100 images the last ten have three copies among 120: on average 25 draws of 100 are theirs."""
    factors = torch.ones(100, dtype=torch.float64)
    factors[90:] = 3
    plan = Repeated(100, 10, seed=0, rank=0, world=1, factors=factors)
    orders = [plan.order(epoch) for epoch in range(200)]
    assert {len(order) for order in orders} == {100}
    assert sum(int((order >= 90).sum()) for order in orders) / 200 == pytest.approx(25, abs=0.6)
    assert plan.order(3).equal(orders[3])
    assert not orders[3].equal(orders[4])


def test_repeated_rounds_a_factor_by_chance():
    """All have 1.5 copies, so that none is drawn more than twice, and some are drawn twice."""
    plan = Repeated(1000, 100, seed=0, rank=0, world=1, factors=torch.full((1000,), 1.5, dtype=torch.float64))
    times = plan.order(0).bincount(minlength=1000)
    assert times.max() == 2
    assert 0.05 < (times == 2).double().mean() < 0.35


def test_repeated_gives_every_rank_an_equal_share_of_the_same_draw():
    factors = torch.full((10,), 2.0, dtype=torch.float64)
    plans = [Repeated(10, 2, 0, rank, 2, factors) for rank in range(2)]
    alone = Repeated(10, 2, 0, 0, 1, factors).order(0)
    shares = [plan.order(0) for plan in plans]
    assert [len(share) for share in shares] == [4, 4]
    assert shares[0].equal(alone[0::2][:4])
    assert shares[1].equal(alone[1::2][:4])


def test_train_batches_repeat_images_with_rare_classes(part):
    """Cats are on three of four pictures and dogs on one: at t = 1 a picture with a dog has two copies."""
    batches = train_batches(part, Augment(), 4, 0, CPU, repeat_threshold=1.0)
    times = sum(torch.cat([batch.indices for batch in batches.epoch(n)]).bincount(minlength=4) for n in range(60))
    assert int(times.sum()) == 240
    assert times[1] == times.max()
    assert times[2] == times.min()
