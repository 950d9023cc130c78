"""Two models in one process: how their blocks alternate, what the ratio is made of, and a slow-down of known size."""

import json
import os
import subprocess
import time

import pytest

from kdedge.core.errors import ModelError
from kdedge.profile import paired as module
from kdedge.profile.agent import respond
from kdedge.profile.closure import agent_zip
from kdedge.profile.paired import Round, alternate, delayed, quartile

ONE = {"threads": 1}


class Clock:
    """Time passes only where a query takes some."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def query(self, called, name, nanoseconds):
        def run():
            called.append(name)
            self.now += nanoseconds

        return run


def test_blocks_alternate_base_new_new_base_for_as_long_as_asked():
    clock, called = Clock(), []
    base, new = clock.query(called, "A", 1_000_000), clock.query(called, "B", 2_000_000)
    rounds = alternate(base, new, 2, 0.040, clock)  # a round takes 12 ms
    assert "".join(called) == "AABBBBAA" * 4
    assert rounds == [Round(([1_000_000] * 2,) * 2, ([2_000_000] * 2,) * 2)] * 4
    assert rounds[0].ratio == 2.0


def test_a_model_that_is_slow_itself_gets_three_rounds():
    clock, called = Clock(), []
    rounds = alternate(clock.query(called, "A", 10**9), clock.query(called, "B", 10**9), 3, 0.001, clock)
    assert len(rounds) == 3


def test_even_drift_leaves_the_ratio_at_one():
    """Block by block 10, 11, 12 and 13: (11 + 12) / (10 + 13)."""
    assert Round(([10] * 4, [13] * 4), ([11] * 4, [12] * 4)).ratio == 1.0


def test_ratio_is_of_quartiles_which_interruptions_do_not_reach():
    assert quartile([900, 10, 14, 12, 800, 11, 13]) == 11
    assert Round(([10, 10, 10, 10], [10, 10, 10, 990]), ([20, 20, 20, 500], [20, 20, 20, 20])).ratio == 2.0


def test_delayed_query_takes_at_least_so_long():
    begin = time.perf_counter_ns()
    delayed(lambda: None, 200_000)()
    assert time.perf_counter_ns() - begin >= 200_000


def request(path, **more):
    asked = {"mode": "paired", "backend": "ort", "model": str(path), "options": ONE, "batch": 2, "seconds": 0.02}
    return {**asked, "base": str(path), "base_backend": "ort", "base_options": ONE, "warmup_cap": 0.02, **more}


def test_reply_holds_what_a_decision_needs(linear):
    reply = respond(request(linear()))
    assert reply["rounds"] >= 3
    assert min(reply["ratio"], reply["base_ms"], reply["new_ms"]) > 0
    assert reply["throttled"] == []
    assert isinstance(reply["settled"], bool)
    assert set(reply["device"]) == {"match", "note"}


def test_planted_slow_down_is_in_the_ratio(linear):
    """A query takes some microseconds; a busy machine adds noise, not a factor."""
    assert respond(request(linear(), wait_ms=0.05))["ratio"] > 2


def test_base_has_shapes_of_its_own(linear):
    with pytest.raises(ModelError) as caught:
        respond(request(linear(), shapes={"x": [2, 3]}, base_shapes={"x": [2, 4]}))
    assert "shape 2x4" in caught.value.what


def test_base_that_is_missing_is_named(linear, tmp_path):
    with pytest.raises(ModelError) as caught:
        respond(request(linear(), base=str(tmp_path / "gone.onnx")))
    assert "gone.onnx" in caught.value.what


def test_new_model_is_opened_first_where_it_is_asked_for(linear, monkeypatch):
    opened = []
    genuine = module.opened
    monkeypatch.setattr(module, "opened", lambda stack, one: opened.append(one["batch"]) or genuine(stack, one))
    monkeypatch.setattr(module, "base_of", lambda asked: {**asked, "batch": 1})
    respond(request(linear()))
    respond(request(linear(), new_first=True))
    assert opened == [1, 2, 2, 1]


def test_agent_of_a_board_measures_in_turns_under_python_3_8(linear, tmp_path, needs):
    python = os.environ.get("KDEDGE_PYTHON38")
    needs(python, "set KDEDGE_PYTHON38 to a Python 3.8 with numpy and onnxruntime")
    (tmp_path / "agent.pyz").write_bytes(agent_zip())
    asked = json.dumps(request(linear()))
    command = [python, "-I", str(tmp_path / "agent.pyz")]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ratio"] > 0
