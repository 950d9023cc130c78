import math

import pytest
import scipy.stats
import torch
from gradient import assert_gradient

from kdedge.distill.pearson import deviations, likeness, pearson_loss

LOSSES = [pearson_loss, likeness]


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def channels(*rows):
    """Of one sample whose map is a row of places."""
    return torch.tensor(rows, dtype=torch.float32)[None, :, None]


def test_deviations_by_hand():
    assert deviations(channels([1, 1, 3, 3])).mT.tolist() == [[-0.5, -0.5, 0.5, 0.5]]


def test_deviations_run_over_samples_and_places():
    two = torch.tensor([[[[1.0, 1.0]]], [[[3.0, 3.0]]]])  # two samples of one channel, constant in each
    assert deviations(two).mT.tolist() == [[-0.5, -0.5, 0.5, 0.5]]


@pytest.mark.parametrize("value", [0.0, 0.1, 60000.0])
def test_deviations_of_a_constant_channel_are_zero_without_a_gradient(value):
    constant = torch.full((2, 1, 4, 4), value, requires_grad=True)
    out = deviations(constant)
    out.sum().backward()
    assert not out.any()
    assert not constant.grad.any()


def test_pearson_loss_by_hand():
    student = channels([0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3])
    teacher = channels([5, 7, 9, 11], [3, 2, 1, 0], [1, 0, 0, 1])  # r is 1, -1 and 0
    assert pearson_loss(student, teacher).item() == pytest.approx(1.0)
    assert pearson_loss(student[:, :2], teacher[:, :2]).item() == pytest.approx(1.0)
    assert pearson_loss(student[:, :1], teacher[:, :1]).item() == pytest.approx(0.0, abs=1e-6)


def test_likeness_by_hand():
    student, teacher = channels([0, 1, 2, 3]), channels([5, 7, 9, 11], [3, 2, 1, 0], [1, 0, 0, 1], [0, 0, 0, 1])
    last = 1.5 * 1 / math.sqrt(5 * 0.75)  # covariance over the root of both sums of squares
    assert likeness(student, teacher).item() == pytest.approx((1 + 1 + 0 + last) / 4)


def test_pearson_loss_and_likeness_agree_with_scipy():
    student, teacher = feature(4, 3, 5, 5, seed=1), feature(4, 3, 5, 5, seed=2)
    rows = [x.transpose(0, 1).reshape(3, -1).numpy() for x in (student, teacher)]
    r = [[scipy.stats.pearsonr(left, right).statistic for right in rows[1]] for left in rows[0]]
    assert pearson_loss(student, teacher).item() == pytest.approx(1 - sum(r[c][c] for c in range(3)) / 3, rel=1e-5)
    assert likeness(student, teacher).item() == pytest.approx(sum(abs(x) for row in r for x in row) / 9, rel=1e-4)


def test_pearson_loss_is_half_the_squared_gap_of_standardized_channels():
    student, teacher = feature(4, 3, 5, 5, seed=1), feature(4, 3, 5, 5, seed=2)
    over = {"dim": (0, 2, 3), "keepdim": True}
    left, right = ((x - x.mean(**over)) / x.std(**over, correction=0) for x in (student, teacher))
    torch.testing.assert_close(pearson_loss(student, teacher), (left - right).square().mean() / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_correlation_does_not_depend_on_scale_offset_batch_and_map(loss):
    student, teacher = feature(4, 3, 4, 4, seed=1), feature(4, 3, 4, 4, seed=2)
    expected = loss(student, teacher)
    torch.testing.assert_close(loss(50 * student - 7, 0.1 * teacher + 3), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss(torch.cat([student, student]), torch.cat([teacher, teacher])), expected)
    large = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (student, teacher)]
    torch.testing.assert_close(loss(*large), expected)
    torch.testing.assert_close(loss(large[0], teacher), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_correlation_has_the_gradient_of_its_differences(loss):
    teacher = feature(2, 3, 2, 2, seed=2)
    assert_gradient(lambda student: loss(student, teacher), feature(2, 3, 2, 2, seed=1))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_correlation_computes_half_precision_features_in_float32(loss, dtype):
    student, teacher = ((1000 * feature(2, 3, 4, 4, seed=seed)).to(dtype) for seed in (1, 2))
    with torch.autocast("cpu", dtype):
        result = loss(student, teacher)
    torch.testing.assert_close(result, loss(student.float(), teacher.float()), rtol=0, atol=0)
