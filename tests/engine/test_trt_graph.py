"""CUDA graphs of a session: captured for each shape, launched as one."""

from pathlib import Path

import numpy as np
import pytest
from fakecuda import COMPUTE_MS, FakeCuda, FakeDriver, Pointer, fake_trt, rows

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine import trt_cuda
from kdedge.engine.trt_session import open_engine


@pytest.fixture
def driver(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    made = FakeDriver(cuda)
    monkeypatch.setattr(trt_cuda.ctypes, "CDLL", lambda name: {"libcuda.so.1": made}[name])
    monkeypatch.setattr(trt_cuda.ctypes, "c_void_p", Pointer)
    monkeypatch.setattr(trt_cuda.ctypes, "byref", lambda pointer: pointer)
    return made


def test_graph_is_launched_from_the_second_query_of_a_shape_on(
    cuda: FakeCuda, engine_path: Path, driver: FakeDriver
) -> None:
    with open_engine(fake_trt(), engine_path, {}, cuda_graph=True) as session:
        for start, count in ((0, 2), (5, 2), (9, 2), (0, 4), (7, 4)):
            given = rows(count, start)
            np.testing.assert_array_equal(session.run({"x": given})["y"], 2 * given)
        assert driver.calls.count("cuStreamBeginCapture_v2") == 2
        assert driver.calls.count("cuGraphLaunch") == 3
        assert driver.calls.count("cuGraphExecDestroy") == 1
    assert driver.calls.count("cuGraphExecDestroy") == 2
    assert driver.calls.count("cuGraphDestroy") == 2


def test_work_that_cannot_be_captured_names_the_option(cuda: FakeCuda, engine_path: Path, driver: FakeDriver) -> None:
    driver.refuses = "cuStreamEndCapture"
    with open_engine(fake_trt(), engine_path, {}, cuda_graph=True) as session:
        with pytest.raises(ModelError, match="cuStreamEndCapture ended with CUDA error 901") as caught:
            session.run({"x": rows(2)})
        assert caught.value.fix == "export.backend_options.cuda_graph: false"


def test_accelerator_takes_no_graph(cuda: FakeCuda, engine_path: Path) -> None:
    with pytest.raises(KdedgeError, match="runs on a deep learning accelerator, which takes no CUDA graph"):
        open_engine(fake_trt(), engine_path, {"options": {"dla_core": 0}}, cuda_graph=True)


def test_device_time_of_a_graph_is_that_of_its_launch(cuda: FakeCuda, engine_path: Path, driver: FakeDriver) -> None:
    with open_engine(fake_trt(), engine_path, {}, cuda_graph=True) as session:
        session.run({"x": rows(2)})
        assert session.device_ms() == COMPUTE_MS
        assert driver.calls.count("cuGraphLaunch") == 1
