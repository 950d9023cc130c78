"""How long is measured, and what counts: real decisions on replies that are written out here."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.deployment import Profile
from kdedge.pipeline import paired as module
from kdedge.pipeline.paired import measure_until_clear, paired_request
from kdedge.profile.measure import Model
from kdedge.profile.targets import LocalTarget

REQUEST = {"mode": "paired"}


def reply(ratio, throttled=(), base_ms=1.0, settled=True):
    return {
        "ratio": ratio, "base_ms": base_ms, "new_ms": ratio * base_ms, "settled": settled, "throttled": list(throttled)
    }  # fmt: skip


class Scripted(LocalTarget):
    """Replies one after the other, the last one for ever."""

    def __init__(self, *replies):
        super().__init__()
        self.replies, self.asked = list(replies), []

    def run(self, request):
        self.asked.append(request)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@pytest.mark.parametrize(("ratio", "outcome"), [(1.0, "pass"), (1.1, "regression"), (1.02, "pass"), (0.8, "pass")])
def test_what_is_clear_takes_five_processes(ratio, outcome):
    target = Scripted(reply(ratio))
    times = measure_until_clear("fp32", REQUEST, target, 60)
    assert (times.outcome, len(target.asked), times.ratio) == (outcome, 5, pytest.approx(ratio))
    assert [request["new_first"] for request in target.asked] == [False, True, False, True, False]


def test_times_that_are_shown_are_of_one_process():
    """On a machine whose clock has two speeds each model's own median may be of another process."""
    measured = [(1.0, 1.0), (1.02, 2.0), (1.01, 1.0), (0.99, 2.0), (1.0, 2.0)]
    target = Scripted(*(reply(ratio, base_ms=base_ms) for ratio, base_ms in measured))
    times = measure_until_clear("fp32", REQUEST, target, 60)
    assert (times.base_ms, times.new_ms) == (2.0, 2.0)  # medians by model: 2.0 and 1.98


def test_what_is_not_clear_is_measured_on_to_a_limit():
    target = Scripted(*(reply(ratio) for ratio in [0.6, 1.6] * 12))
    times = measure_until_clear("fp32", REQUEST, target, 60)
    assert (times.outcome, len(times.ratios)) == ("unstable", 18)


def test_time_that_is_up_leaves_five_processes(monkeypatch):
    """Half a minute each, so that no second one would end in time."""
    clock = iter(range(0, 3000, 30))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    times = measure_until_clear("fp32", REQUEST, Scripted(reply(0.6), reply(1.6), reply(1.0)), 60)
    assert (len(times.ratios), times.seconds, times.outcome) == (5, 150, "unstable")


def test_throttled_processes_do_not_count():
    times = measure_until_clear("fp32", REQUEST, Scripted(reply(1.5, ["hot"]), reply(1.5, ["hot"]), reply(1.0)), 60)
    assert (times.outcome, times.ratios, times.throttled) == ("pass", [1.0] * 5, ["hot", "hot"])


def test_machine_that_is_throttled_for_good_is_unstable():
    target = Scripted(reply(1.5, ["hot"]))
    times = measure_until_clear("fp32", REQUEST, target, 60)
    assert (times.outcome, times.ratio, len(target.asked)) == ("unstable", None, 4)


def test_fast_model_may_lose_ten_microseconds():
    assert measure_until_clear("fp32", REQUEST, Scripted(reply(1.1, base_ms=0.05)), 60).outcome == "pass"
    assert measure_until_clear("fp32", REQUEST, Scripted(reply(1.3, base_ms=0.05)), 60).outcome == "regression"


def test_unsettled_processes_are_counted():
    replies = [reply(1.0, settled=False), reply(1.0)]
    assert measure_until_clear("fp32", REQUEST, Scripted(*replies), 60).unsettled == 1


def test_request_names_both_models():
    new = Model("fp32", Path("new.engine"), None, "trt", {"x": (1, 3)}, {"workspace_mib": 64})
    base = Model("fp32", Path("base.onnx"), None, "ort", {}, {"threads": 2})
    request = paired_request(new, base, Profile(threads=1, batch=4))
    assert (request["model"], request["backend"], request["shapes"]) == ("new.engine", "trt", {"x": (1, 3)})
    assert (request["base"], request["base_backend"], request["base_shapes"]) == ("base.onnx", "ort", {})
    assert request["options"] == {"workspace_mib": 64}
    assert request["base_options"] == {"threads": 1}
    assert (request["mode"], request["batch"]) == ("paired", 4)


def test_real_processes_decide_on_a_model_against_itself(tmp_path, monkeypatch):
    """However noisy the machine is: a model that waits for longer than it takes is slower."""
    weight = numpy_helper.from_array(np.ones((1500, 1500), dtype=np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1500]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", [x], [y], [weight])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    monkeypatch.setattr(module, "MEASURED", 0.02)
    monkeypatch.setattr(module, "WARM_UP", 0.02)
    model = Model("net", path, path, "ort", {}, {"threads": 1})
    times = measure_until_clear("net", {**paired_request(model, model, Profile()), "wait_ms": 2.0}, LocalTarget(), 60)
    assert times.outcome == "regression"
    assert min(times.ratios) > 1.1
