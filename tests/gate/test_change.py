"""Metrics against their baseline: chance, limits, other machines, and slow creep."""

import pytest

from kdedge.core.correctness import correctness
from kdedge.core.gating import Accepted, Baseline, Snapshot
from kdedge.core.report import Metric
from kdedge.gate.baseline import machine_digest
from kdedge.gate.change import Comparison, Judged

HERE = {"match": {"cpu": "A"}, "note": {}}
LATENCY, MEMORY, ENERGY, TOP1 = "a/latency_median_ms", "a/peak_memory_bytes", "a/energy_net_mj", "a/top1"
UNITS = {LATENCY: "ms", MEMORY: "bytes", ENERGY: "mJ", TOP1: "fraction", "a/params": "count", "a/onnx_bytes": "bytes"}


def metric(name: str, value: float, samples: list[float] | None = None, **more) -> Metric:
    better = "higher" if name == TOP1 else "lower"
    return Metric(value=value, unit=UNITS[name], better=better, samples=samples or [], **more)


def judge(name: str, now: Metric, before: Metric, max_change: float | None = None, **more) -> list[Judged]:
    baseline = Baseline(fingerprint=HERE, metrics={name: before}, **more)
    run = Snapshot(fingerprint=HERE, metrics={name: now})
    return list(Comparison(run, baseline, look_back=10).judge(name, max_change))


def spread(center: float, count: int = 5) -> list[float]:
    return [center * (1 + 0.001 * number) for number in range(-(count // 2), count - count // 2)]


@pytest.mark.parametrize(
    ("name", "now", "before", "verdict", "reason", "limit"),
    [
        (LATENCY, 1.031, 1.0, "regression", "+3.1 %, p = 0.0079", "<= baseline + 3 %"),
        (LATENCY, 1.029, 1.0, "pass", "+2.9 %, p = 0.0079", "<= baseline + 3 %"),
        (LATENCY, 0.109, 0.1, "pass", "+9.0 %, p = 0.0079", "<= baseline + 0.010 ms"),
        (LATENCY, 0.111, 0.1, "regression", "+11.0 %, p = 0.0079", "<= baseline + 0.010 ms"),
        (LATENCY, 0.5, 1.0, "pass", "-50.0 %, p = 0.0079", "<= baseline + 3 %"),
        (LATENCY, 1.0, 1.0, "pass", "~ +0.0 %, p = 1", "<= baseline + 3 %"),
        (MEMORY, 2**20 * 10.9, 2**20 * 10, "pass", "+9.0 %, p = 0.0079", "<= baseline + 1.0 MiB"),
        (MEMORY, 2**20 * 106, 2**20 * 100, "regression", "+6.0 %, p = 0.0079", "<= baseline + 5 %"),
        (ENERGY, 10.6, 10.0, "regression", "+6.0 %, p = 0.0079", "<= baseline + 5 %"),
        (ENERGY, 0.14, 0.1, "pass", "+40.0 %, p = 0.0079", "<= baseline + 0.05 mJ"),
    ],
)
def test_measured_is_worse_by_more_than_the_limit_and_by_more_than_chance(name, now, before, verdict, reason, limit):
    """Five against five that do not overlap: 2 of 252 ways to deal them, p = 0.0079."""
    (found,) = judge(name, metric(name, now, spread(now)), metric(name, before, spread(before)))
    assert found == Judged(verdict, reason, limit, before)


def test_measured_beyond_the_limit_passes_where_it_may_be_chance():
    """Ranks 2, 4, 6, 8 and 9 of ten: their sum is 29, where chance gives 27.5."""
    now, before = [1.0, 1.01, 1.2, 1.3, 1.35], [0.9, 1.005, 1.1, 1.25, 1.4]
    (found,) = judge(LATENCY, metric(LATENCY, 1.2, now), metric(LATENCY, 1.1, before))
    assert found.verdict == "pass"
    assert found.reason.startswith("~ +9.1 %, p = 0.")


@pytest.mark.parametrize(("now", "before"), [(3, 5), (5, 3), (3, 3), (5, 0)])
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_measured_in_fewer_than_four_processes_is_insufficient_whatever_it_is(now, before, factor):
    (found,) = judge(LATENCY, metric(LATENCY, factor, spread(factor, now)), metric(LATENCY, 1.0, spread(1.0, before)))
    assert found.verdict == "insufficient"
    assert f"{now} against {before} processes, 4 against 4 are the least" in found.reason


def test_four_processes_are_enough():
    """2 of 70 ways: p = 0.029."""
    (found,) = judge(LATENCY, metric(LATENCY, 2.0, spread(2.0, 4)), metric(LATENCY, 1.0, spread(1.0, 4)))
    assert (found.verdict, found.reason) == ("regression", "+100.0 %, p = 0.029")


def test_throttled_is_unstable_and_says_why():
    hot = metric(LATENCY, 2.0, spread(2.0), stable=False, trouble="slowed down for heat")
    (found,) = judge(LATENCY, hot, metric(LATENCY, 1.0, spread(1.0)))
    assert (found.verdict, found.reason) == ("unstable", "slowed down for heat")


def test_recipe_s_limit_takes_the_place_of_the_relative_part():
    (found,) = judge(LATENCY, metric(LATENCY, 1.1, spread(1.1)), metric(LATENCY, 1.0, spread(1.0)), 0.2)
    assert (found.verdict, found.limit) == ("pass", "<= baseline + 20 %")


@pytest.mark.parametrize(
    ("name", "now", "before", "verdict"),
    [
        ("a/onnx_bytes", 1010, 1000, "pass"),
        ("a/onnx_bytes", 1011, 1000, "regression"),
        ("a/params", 1000, 1000, "pass"),
        ("a/params", 1001, 1000, "regression"),
        ("a/params", float("nan"), 1000, "regression"),
    ],
)
def test_what_is_known_exactly_has_a_strict_limit(name, now, before, verdict):
    (found,) = judge(name, metric(name, now), metric(name, before))
    assert found.verdict == verdict


def accuracy(lost: int, won: int, of: int = 1000) -> list[Judged]:
    """The baseline knew half of the images."""
    then = [number < of // 2 for number in range(of)]
    now = [not right if number < lost or number >= of - won else right for number, right in enumerate(then)]
    answers = [correctness(right, range(of), [0] * of) for right in (now, then)]
    baseline = Baseline(fingerprint={}, metrics={TOP1: metric(TOP1, 0.5)}, answers={TOP1: answers[1]})
    found = {TOP1: metric(TOP1, sum(now) / of)}
    return list(Comparison(Snapshot(fingerprint={}, metrics=found, answers={TOP1: answers[0]}), baseline).judge(TOP1))


@pytest.mark.parametrize(
    ("lost", "won", "verdict", "chance"),
    [
        (10, 0, "regression", "0.00098"),  # 1 / 1024
        (5, 0, "regression", "0.031"),  # 1 / 32
        (4, 0, "pass", "0.062"),  # 1 / 16
        (40, 30, "pass", "0.14"),  # as the binomial distribution of 70 has it: 0.141
        (1, 0, "pass", "0.5"),
        (0, 9, "pass", "1"),
    ],
)
def test_accuracy_is_compared_by_the_images_that_were_lost_and_won(lost, won, verdict, chance):
    (found,) = accuracy(lost, won)
    points = (won - lost) / 10
    assert found.reason == f"{points:+.2f} points: {lost} images lost, {won} won, p = {chance}"
    assert (found.verdict, found.limit) == (verdict, ">= baseline - 0.1 points")


def test_accuracy_within_the_limit_passes_however_sure_the_loss_is():
    (found,) = accuracy(9, 0, of=10_000)
    assert found.verdict == "pass"
    assert "p = 0.002" in found.reason


@pytest.mark.parametrize(("now", "verdict"), [(0.895, "pass"), (0.894, "regression")])
def test_accuracy_without_answers_is_a_plain_difference_and_says_so(now, verdict):
    (found,) = judge(TOP1, metric(TOP1, now), metric(TOP1, 0.9))
    assert (found.verdict, found.limit) == (verdict, ">= baseline - 0.5 points")
    assert found.reason.endswith("; not known by image")


@pytest.mark.parametrize("name", ["int8/mean_ap", "student/mean_ap", "student/mean_ap_gain", "int8/ap75"])
@pytest.mark.parametrize(("now", "verdict"), [(0.39, "pass"), (0.3899, "regression"), (0.5, "pass")])
def test_average_precision_may_lose_a_point(name, now, verdict):
    values = [Metric(value=value, unit="fraction", better="higher") for value in (now, 0.4)]
    (found,) = judge(name, *values)
    assert (found.verdict, found.limit) == (verdict, ">= baseline - 1 point")
    assert found.reason == f"{100 * (now - 0.4):+.2f} points"


def test_average_precision_creeps_by_a_point_as_well():
    values = [Metric(value=value, unit="fraction", better="higher") for value in (0.3895, 0.395)]
    step, creep = judge("int8/mean_ap", *values, history=[entry("int8/mean_ap", 0.4)])
    assert (step.verdict, creep.verdict, creep.limit) == ("pass", "regression", ">= 2026-01-02 - 1 point")


def entry(name: str, value: float, samples: list[float] | None = None, **more) -> Accepted:
    made = {"created": "2026-01-02", "machine": machine_digest(HERE), "values": {name: value}}
    return Accepted(**made | more, samples={name: samples} if samples else {})


def test_creep_below_the_limit_of_each_step_is_held_against_the_oldest():
    name = "a/onnx_bytes"
    history = [entry(name, 1000), entry(name, 1009, created="2026-02-02")]
    step, creep = judge(name, metric(name, 1017), metric(name, 1015), history=history)
    assert step.verdict == "pass"
    assert creep.verdict == "regression"
    assert creep.reason == "+1.7 % since 2026-01-02, in steps that each were allowed"
    assert (creep.limit, creep.before) == ("<= 2026-01-02 + 1 %", 1000)
    assert len(judge(name, metric(name, 1010), metric(name, 1009), history=history)) == 1


@pytest.mark.parametrize("where", ["the baseline", "the history"])
def test_growth_that_was_accepted_is_where_creep_is_counted_from(where):
    name, history = "a/onnx_bytes", [entry("a/onnx_bytes", 1000), entry("a/onnx_bytes", 1900)]
    if where == "the history":
        history[1] = entry(name, 1900, accepts=[name])
        assert len(judge(name, metric(name, 1910), metric(name, 1905), history=history)) == 1
    else:
        assert len(judge(name, metric(name, 2001), metric(name, 2000), history=history, accepts=[name])) == 1


def test_creep_looks_back_no_further_than_it_is_told():
    name, history = "a/onnx_bytes", [entry("a/onnx_bytes", 900), entry("a/onnx_bytes", 1000)]
    baseline = Baseline(fingerprint=HERE, metrics={name: metric(name, 1000)}, history=history)
    run = Snapshot(fingerprint=HERE, metrics={name: metric(name, 1000)})
    found = {back: len(list(Comparison(run, baseline, back).judge(name))) for back in (0, 1, 2)}
    assert found == {0: 1, 1: 1, 2: 2}


@pytest.mark.parametrize(
    ("machine", "count", "checks"), [(machine_digest(HERE), 5, 2), ("another", 5, 1), (machine_digest(HERE), 3, 1)]
)
def test_creep_of_what_was_measured_must_be_of_this_machine_and_more_than_chance(machine, count, checks):
    history = [entry(LATENCY, 1.0, spread(1.0, count), machine=machine)]
    found = judge(LATENCY, metric(LATENCY, 1.05, spread(1.05)), metric(LATENCY, 1.03, spread(1.03)), history=history)
    assert len(found) == checks
