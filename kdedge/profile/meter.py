"""The measuring loop: warm up until the times settle, then time every query.

Part of the device closure: Python 3.8, standard library and numpy.  `clock` counts nanoseconds; tests bring their own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Samples = np.ndarray[Any, np.dtype[np.int64]]

SECOND = 1_000_000_000
WINDOW_QUERIES = 5
WINDOW_NS = SECOND // 10
AGREEMENT = 0.02
LEAST_QUERIES = 5


@dataclass(frozen=True)
class WarmUp:
    queries: int
    elapsed_ns: int
    median_ns: float
    """Of the last window, whole or not."""
    settled: bool
    """False when the cap came first."""


def warm_up(query: Callable[[], object], cap: float, clock: Callable[[], int] = time.perf_counter_ns) -> WarmUp:
    """Query until the medians of the last two windows agree within 2 %, or for `cap` seconds.

    A window is at least 5 queries and 100 ms, so that no warm-up is shorter than 10 queries and 200 ms, in which the
    clocks of a GPU come up.
    """
    start = opened = now = clock()
    previous = median = 0.0
    window: list[int] = []
    queries, settled = 0, False
    while not settled and now - start < cap * SECOND:
        begin = clock()
        query()
        now = clock()
        window.append(now - begin)
        queries += 1
        if len(window) >= WINDOW_QUERIES and now - opened >= WINDOW_NS:
            median = statistics.median(window)
            settled = previous > 0 and abs(median - previous) <= AGREEMENT * previous
            previous, window, opened = median, [], now
    return WarmUp(queries, now - start, statistics.median(window) if window else median, settled)


def measure(
    query: Callable[[], object], seconds: float, expected_ns: float, clock: Callable[[], int] = time.perf_counter_ns
) -> Samples:
    """Nanoseconds of each query in order, one in flight at a time, for `seconds` and at least 5 queries.

    Room for twice the queries that `expected_ns` promises is set aside first, so that the loop allocates nothing.
    """
    samples = np.empty(LEAST_QUERIES + int(2 * seconds * SECOND / max(expected_ns, 1000)), dtype=np.int64)
    count = 0
    deadline = clock() + int(seconds * SECOND)
    while True:
        begin = clock()
        query()
        end = clock()
        if count == len(samples):
            samples = np.concatenate([samples, np.empty_like(samples)])
        samples[count] = end - begin
        count += 1
        if end >= deadline and count >= LEAST_QUERIES:
            return samples[:count]
