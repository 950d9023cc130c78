"""A session's own part, against small fakes of TensorRT's and pycuda's calls."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakecuda import COMPUTE_MS, FakeCuda, fake_trt, rows

from kdedge.core.errors import MissingTool, ModelError
from kdedge.engine.base import LayerTimes
from kdedge.engine.trt_profiler import ProfiledTensorRTSession
from kdedge.engine.trt_session import TensorRTSession, open_engine


@pytest.fixture
def session(cuda: FakeCuda, engine_path: Path) -> Iterator[TensorRTSession]:
    with open_engine(fake_trt(), engine_path, {"precision": {"fp16": 3}}) as opened:
        assert isinstance(opened, TensorRTSession)
        yield opened


def test_session_knows_its_tensors_and_limits(session: TensorRTSession) -> None:
    assert [str(spec) for spec in session.inputs + session.outputs] == ["x float32 [?, 3]", "y float32 [?, 3]"]
    assert (session.min_batch, session.max_batch) == (2, 4)
    assert (session.provider, session.precision_built()) == ("TensorRT", {"fp16": 3})


def test_results_are_of_each_batch_and_stay(session: TensorRTSession) -> None:
    first = session.run({"x": rows(2)})["y"]
    second = session.run({"x": rows(4, 100)})["y"]
    third = session.run({"x": rows(2, 50)})["y"]
    np.testing.assert_array_equal(first, 2 * rows(2))
    np.testing.assert_array_equal(second, 2 * rows(4, 100))
    np.testing.assert_array_equal(third, 2 * rows(2, 50))


def test_input_that_is_not_contiguous_is_taken(session: TensorRTSession) -> None:
    np.testing.assert_array_equal(session.run({"x": rows(4)[::2]})["y"], 2 * rows(4)[::2])


@pytest.mark.parametrize("count", [1, 5])
def test_batch_outside_what_was_built_names_the_option(session: TensorRTSession, count: int) -> None:
    with pytest.raises(ModelError, match=rf"given \[{count}, 3\], built for \[2, 3\] to \[4, 3\]") as caught:
        session.run({"x": rows(count)})
    assert "max_batch" in caught.value.fix


def test_failed_execution_is_an_error(cuda: FakeCuda, engine_path: Path) -> None:
    trt = fake_trt()
    with open_engine(trt, engine_path, {}) as session:
        trt.context.broken = True
        with pytest.raises(ModelError, match=r"net\.engine failed to run"):
            session.run({"x": rows(2)})


def test_sessions_may_be_closed_in_any_order_and_twice(cuda: FakeCuda, engine_path: Path) -> None:
    first, second = open_engine(fake_trt(), engine_path, {}), open_engine(fake_trt(), engine_path, {})
    assert cuda.pushed == 2
    first.close()
    first.close()
    np.testing.assert_array_equal(second.run({"x": rows(2)})["y"], 2 * rows(2))
    second.close()
    assert cuda.pushed == 0
    with pytest.raises(ValueError, match="is closed"):
        second.run({"x": rows(2)})


def test_engine_that_tensorrt_refuses_is_told_in_its_words(cuda: FakeCuda, engine_path: Path) -> None:
    engine_path.write_bytes(b"other")
    with pytest.raises(ModelError, match=r"net\.engine: Version tag does not match\n  kdedge export --trt"):
        open_engine(fake_trt(), engine_path, {})
    assert cuda.pushed == 0


def test_tensor_of_a_type_that_numpy_lacks_is_refused(cuda: FakeCuda, engine_path: Path) -> None:
    with pytest.raises(ModelError, match="its type BF16 is none of numpy's"):
        open_engine(fake_trt("BF16"), engine_path, {})
    assert cuda.pushed == 0


def test_tensorrt_before_8_5_is_too_old(cuda: FakeCuda, engine_path: Path) -> None:
    trt = fake_trt()
    trt.IExecutionContext = object
    with pytest.raises(MissingTool, match=r"too old: kdedge needs 8\.5"):
        open_engine(trt, engine_path, {})


def test_missing_pycuda_names_the_extra(engine_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(MissingTool, match="pycuda is not installed"):
        open_engine(fake_trt(), engine_path, {})


def test_memory_is_that_of_the_newest_member_that_the_version_has(cuda: FakeCuda, engine_path: Path) -> None:
    with open_engine(fake_trt(), engine_path, {}) as session:
        assert session.device_memory == {"context": 4096, "buffers": 96}  # 2 of 4 x 3 floats
    trt = fake_trt(memory={"device_memory_size_v2": 1 << 33, "get_engine_stat": {"weights size": 512}.__getitem__})
    trt.EngineStat = SimpleNamespace(TOTAL_WEIGHTS_SIZE="weights size")
    with open_engine(trt, engine_path, {}) as session:
        assert session.device_memory == {"context": 1 << 33, "weights": 512, "buffers": 96}


def test_engine_is_opened_as_it_was_built(cuda: FakeCuda, engine_path: Path) -> None:
    trt = fake_trt()
    open_engine(trt, engine_path, {"options": {"version_compatible": True, "dla_core": 1}}).close()
    assert (trt.runtime.engine_host_code_allowed, trt.runtime.DLA_core) == (True, 1)
    open_engine(trt, engine_path, {"options": {"version_compatible": False, "dla_core": None}}).close()
    assert not hasattr(trt.runtime, "engine_host_code_allowed")


def test_device_time_is_of_computing_alone(session: TensorRTSession) -> None:
    session.run({"x": rows(2)})
    assert session.device_ms() == COMPUTE_MS
    np.testing.assert_array_equal(session.run({"x": rows(4)})["y"], 2 * rows(4))
    assert session.device_ms() == COMPUTE_MS


def test_device_time_of_a_failed_execution_is_an_error(cuda: FakeCuda, engine_path: Path) -> None:
    trt = fake_trt()
    with open_engine(trt, engine_path, {}) as session:
        trt.context.broken = True
        with pytest.raises(ModelError, match=r"net\.engine failed to run"):
            session.device_ms()


LAYERS = [{"name": "conv + relu", "kind": "CaskConvolution", "precision": "fp16", "nodes": ["conv", "relu"]}]


def test_layers_are_timed_in_every_query_and_named_after_their_nodes(cuda: FakeCuda, engine_path: Path) -> None:
    with open_engine(fake_trt(), engine_path, {"layers": LAYERS}, kind=ProfiledTensorRTSession) as session:
        for _ in range(2):
            np.testing.assert_array_equal(session.run({"x": rows(2)})["y"], 2 * rows(2))
        assert session.layer_times() == [
            LayerTimes("conv + relu", "CaskConvolution", ("conv", "relu"), [0.1875, 0.1875]),
            LayerTimes("head", "", (), [0.0625, 0.0625]),
        ]


def test_session_opened_as_usual_has_no_layer_times(session: TensorRTSession) -> None:
    with pytest.raises(ValueError, match="opened without timing its layers"):
        session.layer_times()
