"""Numbers worked out by hand: a clock that only queries move."""

import itertools

import pytest

from kdedge.profile.meter import measure, warm_up

MS = 1_000_000


class FakeQueries:
    """A query and the clock it moves: the n-th query takes the n-th of `durations` (ms), the last one for ever."""

    def __init__(self, *durations: float) -> None:
        self.durations = itertools.chain(durations, itertools.repeat(durations[-1]))
        self.now = 10_000  # clocks do not start at zero
        self.count = 0

    def __call__(self) -> None:
        self.now += int(next(self.durations) * MS)
        self.count += 1

    def clock(self) -> int:
        return self.now


def test_warm_up_of_steady_queries_ends_after_two_windows():
    query = FakeQueries(30)
    warm = warm_up(query, cap=2, clock=query.clock)
    assert (warm.queries, warm.elapsed_ns, warm.median_ns, warm.settled) == (10, 300 * MS, 30 * MS, True)


def test_warm_up_of_fast_queries_lasts_200_ms():
    query = FakeQueries(0.5)
    warm = warm_up(query, cap=2, clock=query.clock)
    assert (warm.queries, warm.elapsed_ns, warm.settled) == (400, 200 * MS, True)


def test_warm_up_goes_on_while_the_medians_differ_by_more_than_2_percent():
    # windows of 5: medians 40, 24, 20.6, 20.2; 20.6 -> 20.2 is the first step below 2 %
    query = FakeQueries(*[40] * 5, *[24] * 5, *[20.6] * 5, *[20.2] * 5)
    warm = warm_up(query, cap=2, clock=query.clock)
    assert (warm.queries, warm.median_ns, warm.settled) == (20, 20.2 * MS, True)


@pytest.mark.parametrize(("second", "settled_after"), [(20.4, 10), (20.42, 15)])
def test_medians_agree_up_to_2_percent_of_the_earlier(second, settled_after):
    query = FakeQueries(*[20] * 5, second)
    assert warm_up(query, cap=2, clock=query.clock).queries == settled_after


def test_one_slow_query_in_a_window_does_not_unsettle():
    query = FakeQueries(20, 20, 90, 20, 20, 20)
    assert warm_up(query, cap=2, clock=query.clock).queries == 10


def test_warm_up_that_never_settles_is_cut_by_its_cap():
    query = FakeQueries(*itertools.chain.from_iterable([[20] * 5, [40] * 5] * 10))
    warm = warm_up(query, cap=0.8, clock=query.clock)
    # 100 + 200 + 100 + 200 + 100 ms, then three queries of 40 ms pass 0.8 s
    assert (warm.queries, warm.elapsed_ns, warm.settled) == (28, 820 * MS, False)
    assert warm.median_ns == 40 * MS


def test_warm_up_of_queries_longer_than_the_cap_is_one_query():
    query = FakeQueries(3000)
    warm = warm_up(query, cap=2, clock=query.clock)
    assert (warm.queries, warm.median_ns, warm.settled) == (1, 3000 * MS, False)


def test_samples_are_kept_raw_and_in_order():
    query = FakeQueries(30, 10, 20, 25, 5, 15)
    samples = measure(query, seconds=0.1, expected_ns=20 * MS, clock=query.clock)
    assert (samples / MS).tolist() == [30, 10, 20, 25, 5, 15]  # 105 ms: the first sum past 100


def test_measuring_takes_at_least_five_queries():
    query = FakeQueries(400)
    assert len(measure(query, seconds=1, expected_ns=400 * MS, clock=query.clock)) == 5


def test_queries_far_faster_than_expected_are_all_kept():
    query = FakeQueries(*range(1, 6), 0.01)
    samples = measure(query, seconds=0.1, expected_ns=100 * MS, clock=query.clock)
    assert len(samples) == query.count == 5 + 8500  # 15 ms, then 85 ms of 10 us
    assert (samples[:6] / MS).tolist() == [1, 2, 3, 4, 5, 0.01]


def test_time_between_queries_is_not_measured():
    query = FakeQueries(10)

    def slow_clock() -> int:
        query.now += MS  # each look at the clock takes a millisecond
        return query.now

    samples = measure(query, seconds=0.05, expected_ns=10 * MS, clock=slow_clock)
    assert set(samples.tolist()) == {11 * MS}
