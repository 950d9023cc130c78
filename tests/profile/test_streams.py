"""Several sessions at once: what is refused, and that all of them measure together."""

import time
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest

from kdedge.core.errors import ModelError
from kdedge.engine.base import Session, TensorSpec, backend
from kdedge.profile import streams as module
from kdedge.profile.agent import respond
from kdedge.profile.streams import Stream, check_batches, streams

ONE = {"threads": 1}


class Limited(Session):
    """Takes as many rows as it is told."""

    def __init__(self, axis, least=1, most=None):
        spec = TensorSpec("x", (axis, 3), "float32")
        super().__init__("net.engine", [spec], [spec], provider="numpy", precision={})
        self.min_batch, self.max_batch = least, most

    def _infer(self, feeds):
        return feeds

    def close(self):
        pass


@pytest.mark.parametrize(
    ("session", "batches", "what", "why", "fix"),
    [
        (Limited(1), [1, 2, 4], "batch 2, 4 for net.engine", "it takes 1 only", "--batches 1 "),
        (Limited(8), [1], "batch 1 for net.engine", "it takes 8 only", "--batches 8 "),
        (Limited(None, 2, 4), [1, 2, 4, 8], "batch 1, 8 for net.engine", "it takes 2 to 4", "--batches 2,4 "),
        (Limited(None, 2), [1], "batch 1 for net.engine", "it takes 2 or more", "--batches 2 "),
    ],
)
def test_batches_that_the_model_does_not_take_are_told_with_its_range(session, batches, what, why, fix):
    with pytest.raises(ModelError) as caught:
        check_batches(session, batches)
    assert (caught.value.what, caught.value.why) == (what, why)
    assert caught.value.fix.startswith(fix)


@pytest.mark.parametrize("session", [Limited(None), Limited(None, 1, 8), Limited(4)])
def test_batches_that_the_model_takes_are_fine(session):
    check_batches(session, [4])


def request(path, **more):
    asked = {"mode": "streams", "backend": "ort", "model": str(path), "options": ONE, "batches": [1, 2], "batch": 2}
    return {**asked, "seconds": 0.02, "warmup_cap": 0.02, "streams": 2, **more}


def test_every_stream_replies_with_its_queries_and_all_with_one_wall_time(linear):
    reply = respond(request(linear()))
    assert len(reply["latency_ms"]) == 2
    assert all(min(latencies) > 0 for latencies in reply["latency_ms"])
    assert reply["wall_ms"] >= max(sum(latencies) for latencies in reply["latency_ms"])
    assert reply["provider"] == "CPUExecutionProvider"
    assert reply["options"]["threads"] == 1
    assert set(reply["device"]) == {"match", "note"}


def test_wall_time_is_from_the_first_start_to_the_last_end(linear, monkeypatch):
    """In nanoseconds: 5 ms to 12 ms, whatever each query took."""
    found = [Stream(np.array([1_000_000]), start, end, settled, "p") for start, end, settled in
             [(6_000_000, 12_000_000, True), (5_000_000, 9_000_000, False)]]  # fmt: skip
    monkeypatch.setattr(module, "together", lambda request, settings: found)
    reply = streams(request(linear()))
    assert (reply["wall_ms"], reply["latency_ms"], reply["settled"]) == (7.0, [[1.0], [1.0]], False)


def test_streams_measure_at_the_same_time(linear):
    found = module.together(request(linear(), streams=3), backend("ort").settings(ONE))
    assert len(found) == 3
    assert max(stream.began for stream in found) < min(stream.ended for stream in found)


def test_model_that_does_not_take_a_batch_is_refused_before_anything_is_measured(linear, monkeypatch):
    monkeypatch.setattr(module, "warm_up", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(ModelError, match=r"batch 2 for linear\.onnx: it takes 1 only"):
        respond(request(linear(batch=1), batch=1))


def test_stream_that_fails_does_not_keep_the_others_waiting(linear, monkeypatch):
    """The second to arrive fails, when the first one waits at the barrier already."""
    arrived = []

    def one(request, settings, ready):
        arrived.append(1)
        if len(arrived) == 1:
            ready.wait()
        try:
            while not ready.n_waiting:
                time.sleep(0)
            raise ModelError("net.onnx failed to run", "as told")
        finally:
            ready.abort()

    monkeypatch.setattr(module, "one", one)
    with pytest.raises(ModelError, match="as told"):
        module.together(request(linear()), {})


def test_failure_is_raised_as_it_is_and_lets_the_others_go(linear, tmp_path):
    ready = Barrier(2)
    with pytest.raises(ModelError, match="no such file"):
        module.one(request(tmp_path / "absent.onnx"), ONE, ready)
    with pytest.raises(BrokenBarrierError):
        ready.wait()
