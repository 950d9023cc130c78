"""Numbers worked out by hand from made-up replies."""

import numpy as np
import pytest

from kdedge.core.deployment import Profile
from kdedge.core.errors import KdedgeError
from kdedge.profile.measure import Model
from kdedge.profile.sweep import Axes, parse_counts, point_of, sweep_model
from kdedge.profile.targets import LocalTarget


@pytest.mark.parametrize(("text", "counts"), [("1,2,4", (1, 2, 4)), ("8", (8,)), ("4, 1,4", (1, 4))])
def test_counts_are_in_order_and_each_once(text, counts):
    assert parse_counts("--batches", text) == counts


@pytest.mark.parametrize("text", ["", "1,,2", "0,1", "-1", "two", "1.5", "1;2"])
def test_list_that_is_none_ends_in_an_example(text):
    with pytest.raises(KdedgeError) as caught:
        parse_counts("--streams", text)
    assert (caught.value.what, caught.value.fix) == (f"--streams {text}", "--streams 1,2,4")


def reply(*streams, wall_ms=100.0, settled=True, provider="CPUExecutionProvider", throttled=()):
    device = {"match": {"cpus": 2, "cpu_quota": None}, "note": {}}
    answer = {"latency_ms": [list(stream) for stream in streams], "wall_ms": wall_ms, "settled": settled}
    return {**answer, "provider": provider, "options": {"threads": 1}, "device": device, "throttled": list(throttled)}


def test_throughput_is_of_all_streams_over_the_wall_time():
    point = point_of(4, 2, reply([1.0, 2.0, 3.0], [5.0, 6.0], wall_ms=20.0))
    assert (point.batch, point.streams, point.queries, point.median_ms) == (4, 2, 5, 3.0)
    assert point.throughput == 1000.0  # 5 queries of 4 images in 20 ms
    assert point.p99_ms is None


def test_p99_takes_ten_queries_above_it():
    assert point_of(1, 2, reply(np.arange(1, 501), np.arange(501, 1001))).p99_ms == 990.0
    assert point_of(1, 1, reply(np.arange(1, 1000))).p99_ms is None


class Replying(LocalTarget):
    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []

    def run(self, request):
        self.requests.append(request)
        return self.replies.pop(0)


def swept(path, target, axes, **shapes):
    return sweep_model(Model("net", path, path, "ort", shapes, {}), Profile(threads=1), axes, target)


def test_every_batch_is_measured_with_every_number_of_streams(linear):
    target = Replying(reply([1.0]), reply([1.0], [1.0]), reply([1.0]), reply([2.0], [2.0], wall_ms=50.0))
    report = swept(linear(), target, Axes((2, 4), (1, 2)), x=(1, 3))
    asked = [(request["batch"], request["streams"], request["shapes"]["x"]) for request in target.requests]
    assert asked == [(2, 1, (2, 3)), (2, 2, (2, 3)), (4, 1, (4, 3)), (4, 2, (4, 3))]
    assert {tuple(request["batches"]) for request in target.requests} == {(2, 4)}
    assert [point.throughput for point in report.points] == [20.0, 40.0, 40.0, 160.0]
    assert report.best is report.points[3]
    assert report.notes == []


def test_sweep_without_batches_takes_the_profile_s_own(linear):
    target = Replying(reply([1.0]), reply([1.0], [1.0]))
    path = linear()
    report = sweep_model(Model("net", path, path, "ort", {}, {}), Profile(batch=8), Axes(streams=(1, 2)), target)
    assert [(point.batch, point.streams) for point in report.points] == [(8, 1), (8, 2)]


def test_notes_say_what_puts_a_point_in_doubt(linear):
    slow = reply([1.0], settled=False, throttled=["slowed down for heat"])
    crowd = reply([1.0], [1.0], [1.0], throttled=["slowed down for heat"])
    assert swept(linear(), Replying(slow, crowd), Axes(streams=(1, 3))).notes == [
        "the warm-up did not settle: batch 1 in 1 streams",
        "3 streams of 1 threads share 2 CPUs",
        "slowed down for heat",
    ]


def test_streams_on_a_gpu_share_no_cpus(linear):
    target = Replying(reply([1.0], [1.0], [1.0], provider="TensorRT"))
    assert swept(linear(), target, Axes(streams=(3,))).notes == []


def test_points_are_measured_for_real(linear):
    spec = Profile(seconds=0.02, warmup_cap=0.05, threads=1)
    path = linear()
    report = sweep_model(Model("net", path, path, "ort", {}, {}), spec, Axes((1, 4), (2,)), LocalTarget())
    assert [(point.batch, point.streams) for point in report.points] == [(1, 2), (4, 2)]
    assert all(point.queries >= 10 and point.throughput > 0 for point in report.points)
    assert type(report).model_validate_json(report.model_dump_json()) == report
