import pytest
import torch
from gradient import assert_gradient

from kdedge.distill.maps import pooled, products, resampled, same_size, unit


def test_pooled_is_the_mean_over_the_places():
    feature = torch.tensor([[[[1.0, 3.0]], [[-2.0, 0.0]]]])  # (1, 2, 1, 2)
    assert pooled(feature).tolist() == [[2.0, -1.0]]
    assert pooled(torch.full((1, 1, 64, 64), 60000.0).half()).tolist() == [[60000.0]]  # the sum is beyond float16


def test_same_size_averages_the_larger_map_down():
    large, small = torch.tensor([[[[2.0, 4.0, 8.0, 0.0]]]]), torch.zeros(1, 3, 1, 2)
    assert same_size(large, small)[0].tolist() == [[[[3.0, 4.0]]]]
    assert same_size(small, large)[1].tolist() == [[[[3.0, 4.0]]]]
    assert same_size(large, small)[1] is small


def test_same_size_takes_the_smaller_of_each_side():
    left, right = same_size(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 4, 4))
    assert left.shape == right.shape == (1, 1, 2, 4)


def test_resampled_brings_the_students_map_to_the_teachers_size():
    """From 2x1 places to 4x1, whose middles are at 0, 1/4, 3/4 and 1 of the way."""
    small, large = torch.tensor([[[[0.0], [4.0]]]]), torch.zeros(1, 1, 4, 1, dtype=torch.float16)
    student, teacher = resampled(small, large)
    assert student.flatten().tolist() == [0, 1, 3, 4]
    assert teacher.dtype == torch.float32
    assert resampled(large, small)[0].shape == small.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_products_by_hand_stay_in_float32_under_autocast(dtype):
    left, right = torch.tensor([[300.0, 0.0], [1.0, 2.0]]).to(dtype), torch.tensor([[300.0, 1.0]]).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        result = products(left, right)
    assert result.dtype == torch.float32
    assert result.tolist() == [[90000.0], [302.0]]


def test_unit_by_hand():
    vectors = torch.tensor([[3.0, 4.0], [-5.0, 0.0]])
    torch.testing.assert_close(unit(vectors), torch.tensor([[0.6, 0.8], [-1.0, 0.0]]))
    torch.testing.assert_close(unit(vectors.T, dim=0), unit(vectors).T)


def test_unit_gradient():
    weights = torch.arange(6.0).reshape(2, 3)
    assert_gradient(lambda x: (unit(x) * weights).sum(), torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, 0.1]]))


def test_unit_of_zeros_is_zero_without_a_gradient():
    vectors = torch.zeros(2, 3, requires_grad=True)
    out = unit(vectors)
    out.sum().backward()
    assert torch.equal(out, torch.zeros(2, 3))
    assert torch.equal(vectors.grad, torch.zeros(2, 3))
