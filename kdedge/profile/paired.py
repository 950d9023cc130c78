"""What the agent does to hold one model against another: both in one process and in turns, so that what slows the
machine down slows both.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kdedge.engine.base import backend
from kdedge.profile.building import device
from kdedge.profile.meter import SECOND, warm_up
from kdedge.profile.throttle import evidence, state
from kdedge.profile.timing import MILLISECOND, held, inputs

if TYPE_CHECKING:
    Query = Callable[[], object]

BLOCK_NS = 10 * MILLISECOND
LEAST_QUERIES = 3
"""In a block."""
LEAST_ROUNDS = 3


class Round(NamedTuple):
    """Nanoseconds of every query in four blocks, which are timed base, new, new, base."""

    base: tuple[list[int], list[int]]
    new: tuple[list[int], list[int]]

    @property
    def ratio(self) -> float:
        """New to base, by the lower quartiles: what else runs only adds time, to some queries and not to others.

        For a model against itself they differ between processes by half as much as medians, by a tenth as much as
        means.  Minima would differ least of all, but not see what slows down most queries and not all of them.
        """
        return sum(map(quartile, self.new)) / sum(map(quartile, self.base))


def paired(request: dict[str, Any]) -> dict[str, Any]:
    """The ratio of the new model's time to the base's, with random inputs, in this process.

    `new_first` in the request has the new model opened and warmed up first: what comes first may be the faster one,
    so that this is to alternate from process to process.  `wait_ms` is waited in each query of the new model: a
    slow-down of known size, for trying out what is decided by the ratios.
    """
    models = {"base": base_of(request), "new": request}
    order = sorted(models, reverse=request.get("new_first", False))
    with ExitStack() as stack:
        stack.enter_context(held(request))
        reply, before = device(request), state()
        queries = {name: opened(stack, models[name]) for name in order}
        if request.get("wait_ms"):
            queries["new"] = delayed(queries["new"], round(request["wait_ms"] * MILLISECOND))
        warm = {name: warm_up(queries[name], request["warmup_cap"]) for name in order}
        expected = max(each.median_ns for each in warm.values())
        count = max(LEAST_QUERIES, round(BLOCK_NS / max(expected, 1)))
        rounds = alternate(queries["base"], queries["new"], count, request["seconds"])
        throttled = [found.text for found in evidence([before, state()])]
    reply.update(
        ratio=statistics.median(each.ratio for each in rounds),
        base_ms=median_ms(times for each in rounds for times in each.base),
        new_ms=median_ms(times for each in rounds for times in each.new),
        rounds=len(rounds),
        settled=all(each.settled for each in warm.values()),
        throttled=throttled,
    )
    return reply


def base_of(request: dict[str, Any]) -> dict[str, Any]:
    """The same request with the base as its model."""
    own = {key: request.get(f"base_{key}", {}) for key in ("options", "shapes")}
    return {**request, "model": request["base"], "backend": request["base_backend"], **own}


def opened(stack: ExitStack, request: dict[str, Any]) -> Query:
    """A query of the model, which the stack closes."""
    engine = backend(request["backend"])
    session = stack.enter_context(engine.open(Path(request["model"]), engine.settings(request.get("options", {}))))
    _, feeds = inputs(session, request)
    return lambda: session.run(feeds)


def delayed(query: Query, wait_ns: int) -> Query:
    """The query and then a busy wait, as a sleep is not exact to a tenth of a millisecond."""

    def run() -> None:
        query()
        until = time.perf_counter_ns() + wait_ns
        while time.perf_counter_ns() < until:
            pass

    return run


def alternate(
    base: Query, new: Query, queries: int, seconds: float, clock: Callable[[], int] = time.perf_counter_ns
) -> list[Round]:
    """Rounds for `seconds`, and at least 3; in each what drifts evenly adds the same to both models."""
    rounds: list[Round] = []
    deadline = clock() + int(seconds * SECOND)
    while clock() < deadline or len(rounds) < LEAST_ROUNDS:
        first, second, third, fourth = (block(query, queries, clock) for query in (base, new, new, base))
        rounds.append(Round((first, fourth), (second, third)))
    return rounds


def block(query: Query, queries: int, clock: Callable[[], int]) -> list[int]:
    times = []
    for _ in range(queries):
        begin = clock()
        query()
        times.append(clock() - begin)
    return times


def quartile(times: list[int]) -> float:
    return statistics.quantiles(times, n=4)[0]


def median_ms(blocks: Iterable[list[int]]) -> float:
    return statistics.median(chain.from_iterable(blocks)) / MILLISECOND
