"""Two engines in turns on a board that has trtexec alone, against a program that behaves like it."""

import faketrtexec
import pytest

from kdedge.core.errors import KdedgeError
from kdedge.profile import trtexec_backend, trtexec_paired
from kdedge.profile.agent import respond


@pytest.fixture
def request_of(tmp_path, monkeypatch, linear):
    """request_of(base_backend="ort") asks for an engine beside itself, where TensorRT's packages are missing."""
    (tmp_path / "bin").mkdir()
    faketrtexec.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trtexec_backend, "find_spec", lambda name: None)
    engine = str(tmp_path / "linear.engine")
    respond({"mode": "build", "backend": "trt", "options": {}, "onnx": str(linear("n")), "out": engine})
    asked = {"mode": "paired", "backend": "trt", "model": engine, "options": {}, "shapes": {}, "batch": 2}
    asked |= {"base": engine, "base_backend": "trt", "base_options": {}, "base_shapes": {}}
    return lambda **changes: {**asked, "seconds": 0.05, "warmup_cap": 1.0, **changes}


def test_reply_holds_what_a_decision_needs(request_of):
    """After the warm-up the program's queries take 6 and 6.25 ms, of which the run counts five and four."""
    reply = respond(request_of())
    assert set(reply.pop("device")) == {"match", "note"}
    expected = {"ratio": 1.0, "base_ms": 6.0, "new_ms": 6.0, "rounds": 1, "settled": True, "throttled": []}
    assert reply == expected


@pytest.mark.parametrize(
    ("new_first", "order", "ratio"),
    [(False, ["base", "new", "new", "base"], 22 / 26), (True, ["new", "base", "base", "new"], 26 / 22)],
)
def test_runs_take_turns_and_the_ratio_is_of_their_medians(request_of, monkeypatch, new_first, order, ratio):
    """The runs have medians of 10, 10, 12 and 16 ms; the last one is throttled, and the third one does not settle."""
    queries = [[10.0, 10.0, 99.0], [10.0], [11.0, 13.0], [16.0]]
    asked = []

    def timed(request):
        asked.append("base" if request["model"] == "b.engine" else "new")
        number = len(asked) - 1
        sample = {"latency_ms": queries[number], "settled": number != 2}
        return {"device": {}, "sample": sample, "throttled": ["hot"] if number == 3 else []}

    monkeypatch.setattr(trtexec_paired, "timed", timed)
    reply = respond(request_of(base="b.engine", new_first=new_first))
    assert asked == order
    assert reply["ratio"] == pytest.approx(ratio)
    assert {reply["base_ms"], reply["new_ms"]} == {11.0, 13.0}
    assert (reply["settled"], reply["throttled"]) == (False, ["hot"])


@pytest.mark.parametrize("backends", [{"backend": "ort"}, {"base_backend": "ort"}])
def test_other_library_is_refused_beside_it(request_of, backends):
    with pytest.raises(KdedgeError, match=r"backend ort beside TensorRT: .* cannot take turns"):
        respond(request_of(**backends))
