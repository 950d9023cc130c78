"""A profile of ONNX Runtime's, written out by hand: microseconds in, milliseconds by layer out; and real ones."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine.base import LayerTimes, backend
from kdedge.engine.ort_layers import read_profile

ONE = {"threads": 1}


def node(name: str, operator: str, microseconds: int, began: int = 0) -> dict:
    args = {"op_name": operator}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": began, "dur": microseconds, "args": args}


SESSION = [{"cat": "Session", "name": "session_initialization", "dur": 9000}]
QUERY = [{"cat": "Session", "name": "SequentialExecutor::Execute", "dur": 60}, {"cat": "Session", "name": "model_run"}]


def test_nodes_are_collected_by_query() -> None:
    first = [node("conv", "Conv", 40), node("fc", "Gemm", 5), *QUERY]
    second = [node("conv", "Conv", 30), node("fc", "Gemm", 6), *QUERY]
    assert read_profile(json.dumps(SESSION + first + second)) == [
        LayerTimes("conv", "Conv", (), [0.04, 0.03]),
        LayerTimes("fc", "Gemm", (), [0.005, 0.006]),
    ]


def test_node_that_runs_twice_in_a_query_is_summed_and_one_that_does_not_run_is_zero() -> None:
    loop = [node("body", "Add", 3), node("body", "Add", 4), *QUERY]
    other = [node("branch", "Mul", 2), *QUERY]
    assert read_profile(json.dumps(loop + other)) == [
        LayerTimes("body", "Add", (), [0.007, 0.0]),
        LayerTimes("branch", "Mul", (), [0.0, 0.002]),
    ]


def test_node_that_runs_others_has_what_they_leave_of_its_time() -> None:
    # conv 0..40, loop 40..140 with [add 45..65, if 70..130 with [mul 72..122]], fc 140..145
    inner = [node("add", "Add", 20, 45), node("mul", "Mul", 50, 72), node("if", "If", 60, 70)]
    whole = [node("conv", "Conv", 40, 0), *inner, node("loop", "Loop", 100, 40), node("fc", "Gemm", 5, 140), *QUERY]
    again = [node("loop", "Loop", 9, 40), *QUERY]  # nothing of the query before is inside of it
    found = {layer.name: layer.milliseconds for layer in read_profile(json.dumps(whole + again))}
    assert found["if"] == [0.01, 0]
    assert found["loop"] == [0.02, 0.009]  # 100 - 20 of add - 60 of if
    assert sum(times[0] for times in found.values()) == pytest.approx(0.145)


def test_what_is_no_kernel_is_left_out() -> None:
    fence = {"cat": "Node", "name": "conv_fence_before", "dur": 100, "args": {"op_name": "Conv"}}
    assert read_profile(json.dumps([fence, node("conv", "Conv", 40), *QUERY])) == [
        LayerTimes("conv", "Conv", (), [0.04])
    ]


ZERO = {"image": np.zeros((1, 3, 32, 32), dtype=np.float32)}


def test_layers_of_an_engine_are_timed_in_every_query(make_net: Callable[..., Path], tmp_path: Path) -> None:
    engine = tmp_path / "net.engine.onnx"
    backend("ort").build(make_net("fp32"), engine, ONE)
    with backend("ort").open_profiled(engine, ONE) as session:
        for _ in range(3):
            session.run(ZERO)
        layers = session.layer_times()
    assert [layer.kind for layer in layers] == [node.op_type for node in onnx.load(engine).graph.node]
    assert {len(layer.milliseconds) for layer in layers} == {3}
    assert all(0 <= milliseconds < 1000 for layer in layers for milliseconds in layer.milliseconds)


def test_what_onnx_runtime_writes_is_gone_with_the_session(
    make_net: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with backend("ort").open_profiled(make_net("fp32"), ONE) as session:
        session.run(ZERO)
        assert len(list(temporary.iterdir())) == 1
    assert list(temporary.iterdir()) == []
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        backend("ort").open_profiled(tmp_path / "broken.onnx", ONE)
    assert list(temporary.iterdir()) == []


def test_layers_on_a_gpu_are_refused(make_net: Callable[..., Path]) -> None:
    with pytest.raises(KdedgeError, match="knows when a GPU's kernels were launched, not what they took"):
        backend("ort_cuda").open_profiled(make_net("fp32"), {})
