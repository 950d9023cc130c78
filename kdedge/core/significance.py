"""Whether a difference is more than chance: exact tests, without numpy, so that a gate starts at once."""

import math
from collections import Counter
from collections.abc import Sequence


def sign_test(worse: int, better: int) -> float:
    """One-sided p-value of paired comparisons: the chance of `worse` or more of them all if both were as likely."""
    count = worse + better
    return float(sum(math.comb(count, k) for k in range(worse, count + 1)) / 2**count)


def rank_sum_test(new: Sequence[float], base: Sequence[float]) -> float:
    """Two-sided p-value of Mann and Whitney, Ann. Math. Statist. 18 (1947) 50: twice the smaller tail.

    Exact with ties as well: every way to deal the values to two groups of these sizes is counted.
    """
    pooled = sorted([*new, *base])
    first = {value: pooled.index(value) for value in set(pooled)}
    places = {value: 2 * first[value] + count + 1 for value, count in Counter(pooled).items()}  # twice the mean rank
    ways = rank_sums([places[value] for value in pooled], len(new))
    observed = sum(places[value] for value in new)
    lower = sum(count for total, count in ways.items() if total <= observed)
    upper = sum(count for total, count in ways.items() if total >= observed)
    return min(1.0, 2 * min(lower, upper) / math.comb(len(pooled), len(new)))


def rank_sums(ranks: Sequence[int], size: int) -> Counter[int]:
    """In how many ways `size` of the ranks give each sum."""
    ways: list[Counter[int]] = [Counter({0: 1}), *(Counter() for _ in range(size))]
    for rank in ranks:
        for taken in range(size, 0, -1):
            for total, count in ways[taken - 1].items():
                ways[taken][total + rank] += count
    return ways[size]
