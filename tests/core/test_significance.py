import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, permutation_test, rankdata

from kdedge.core.significance import rank_sum_test, sign_test


@pytest.mark.parametrize(
    ("worse", "better", "chance"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (0, 5, 1.0), (3, 1, 5 / 16), (7, 1, 9 / 256)],
)
def test_sign_test_counts_the_ways_to_be_as_extreme(worse: int, better: int, chance: float) -> None:
    assert sign_test(worse, better) == chance


def test_sign_test_of_many_images_is_a_number() -> None:
    """The normal approximation with continuity correction: z = (1530 - 1500 - 0.5) / sqrt(750) = 1.0772."""
    assert sign_test(1530, 1470) == pytest.approx(0.1407, abs=2e-4)


@pytest.mark.parametrize(
    ("count", "chance"), [(1, 1.0), (2, 1 / 3), (3, 0.1), (4, 2 / 70), (5, 2 / 252), (6, 2 / 924)], ids=str
)
def test_rank_sum_test_of_groups_that_do_not_overlap(count: int, chance: float) -> None:
    """Two of all the ways to choose `count` of twice as many: three against three can never be significant at 5 %."""
    low, high = list(range(count)), list(range(count, 2 * count))
    assert rank_sum_test(high, low) == pytest.approx(chance, rel=1e-12)
    assert rank_sum_test(low, high) == pytest.approx(chance, rel=1e-12)


def test_rank_sum_test_of_equal_values_is_1() -> None:
    assert rank_sum_test([1.0] * 5, [1.0] * 5) == 1.0


VALUES = st.lists(st.floats(0.001, 1e3), min_size=1, max_size=7)


@pytest.mark.oracle
@given(VALUES, VALUES)
def test_rank_sum_test_agrees_with_scipy(new: list[float], base: list[float]) -> None:
    if len({*new, *base}) == len(new) + len(base):  # without ties its exact test is exact
        assert rank_sum_test(new, base) == pytest.approx(mannwhitneyu(new, base, method="exact").pvalue, rel=1e-9)


FEW = st.lists(st.integers(0, 4).map(float), min_size=2, max_size=5)


@pytest.mark.oracle
@given(FEW, FEW)
def test_rank_sum_test_with_ties_agrees_with_every_permutation(new: list[float], base: list[float]) -> None:
    ranks = rankdata([*new, *base])
    groups = ranks[: len(new)], ranks[len(new) :]
    sums = {"permutation_type": "independent", "n_resamples": 10_000, "alternative": "two-sided", "vectorized": False}
    expected = permutation_test(groups, lambda one, _: one.sum(), **sums).pvalue
    assert rank_sum_test(new, base) == pytest.approx(expected, rel=1e-9)
