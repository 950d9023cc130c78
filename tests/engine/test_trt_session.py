"""A session's own part, against a small fake of TensorRT's and pycuda's calls: an engine of y = 2 x for 2 to 4 rows.

Device memory is arrays under made-up addresses; work given to the stream is done when it is waited for.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdedge.core.errors import MissingTool, ModelError
from kdedge.engine.trt_session import TensorRTSession, open_engine

Array = NDArray[Any]


class FakeCuda(ModuleType):
    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.memory: dict[int, Array] = {}
        self.pushed = 0
        self.Device = lambda number: self
        self.Stream = lambda: SimpleNamespace(handle=self, synchronize=self.synchronize)
        self.Context = SimpleNamespace(pop=self.pop)
        self.queue: list[Any] = []

    def init(self) -> None: ...

    def retain_primary_context(self) -> Any:
        return self

    def push(self) -> None:
        self.pushed += 1

    def pop(self) -> None:
        self.pushed -= 1

    def synchronize(self) -> None:
        while self.queue:
            self.queue.pop(0)()

    def pagelocked_empty(self, size: int, dtype: Any) -> Array:
        return np.empty(size, dtype)

    def mem_alloc(self, size: int) -> int:
        address = 1000 + len(self.memory)
        self.memory[address] = np.zeros(size, np.uint8)
        return address

    def memcpy_htod_async(self, to: int, array: Array, stream: Any) -> None:
        self.queue.append(lambda: self.write(to, array))

    def memcpy_dtoh_async(self, array: Array, start: int, stream: Any) -> None:
        self.queue.append(lambda: np.copyto(array, self.read(start, array.shape)))

    def write(self, address: int, array: Array) -> None:
        self.memory[address][: array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)

    def read(self, address: int, shape: tuple[int, ...]) -> Array:
        return self.memory[address][: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)


class FakeContext:
    """The execution context."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.broken = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return 2 <= shape[0] <= 4

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, cuda: FakeCuda) -> bool:
        shape = self.shape
        cuda.queue.append(lambda: cuda.write(self.addresses["y"], 2 * cuda.read(self.addresses["x"], shape)))
        return not self.broken


class FakeLog:
    ERROR, INTERNAL_ERROR = "error", "internal"


def fake_trt(kind: str = "FLOAT") -> Any:
    context = FakeContext()
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=lambda index: "yx"[index],
        get_tensor_mode=lambda name: {"x": "in", "y": "out"}[name],
        get_tensor_shape=lambda name: (-1, 3),
        get_tensor_dtype=lambda name: SimpleNamespace(name=kind),
        get_tensor_profile_shape=lambda name, profile: [(2, 3), (2, 3), (4, 3)],
        create_execution_context=lambda: context,
    )

    def runtime(log: Any) -> Any:
        def deserialize(content: bytes) -> Any:
            if content == b"engine":
                return engine
            log.log("error", "Version tag does not match")
            return None

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    return SimpleNamespace(
        __version__="10.3.0",
        ILogger=FakeLog,
        IExecutionContext=FakeContext,
        Runtime=runtime,
        TensorIOMode=SimpleNamespace(INPUT="in"),
        init_libnvinfer_plugins=lambda log, namespace: True,
        context=context,
    )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", made)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "net.engine").write_bytes(b"engine")
    return tmp_path / "net.engine"


@pytest.fixture
def session(cuda: FakeCuda, path: Path) -> Iterator[TensorRTSession]:
    with open_engine(fake_trt(), path, {"fp16": 3}) as opened:
        assert isinstance(opened, TensorRTSession)
        yield opened


def rows(count: int, start: int = 0) -> Array:
    return np.arange(start, start + 3 * count, dtype=np.float32).reshape(count, 3)


def test_session_knows_its_tensors_and_limits(session: TensorRTSession) -> None:
    assert [str(spec) for spec in session.inputs + session.outputs] == ["x float32 [?, 3]", "y float32 [?, 3]"]
    assert (session.max_batch, session.provider, session.precision_built()) == (4, "TensorRT", {"fp16": 3})


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


def test_failed_execution_is_an_error(cuda: FakeCuda, path: Path) -> None:
    trt = fake_trt()
    with open_engine(trt, path, {}) as session:
        trt.context.broken = True
        with pytest.raises(ModelError, match=r"net\.engine failed to run"):
            session.run({"x": rows(2)})


def test_sessions_may_be_closed_in_any_order_and_twice(cuda: FakeCuda, path: Path) -> None:
    first, second = open_engine(fake_trt(), path, {}), open_engine(fake_trt(), path, {})
    assert cuda.pushed == 2
    first.close()
    first.close()
    np.testing.assert_array_equal(second.run({"x": rows(2)})["y"], 2 * rows(2))
    second.close()
    assert cuda.pushed == 0
    with pytest.raises(ValueError, match="is closed"):
        second.run({"x": rows(2)})


def test_engine_that_tensorrt_refuses_is_told_in_its_words(cuda: FakeCuda, path: Path) -> None:
    path.write_bytes(b"other")
    with pytest.raises(ModelError, match=r"net\.engine: Version tag does not match\n  kdedge export --trt"):
        open_engine(fake_trt(), path, {})
    assert cuda.pushed == 0


def test_tensor_of_a_type_that_numpy_lacks_is_refused(cuda: FakeCuda, path: Path) -> None:
    with pytest.raises(ModelError, match="its type BF16 is none of numpy's"):
        open_engine(fake_trt("BF16"), path, {})
    assert cuda.pushed == 0


def test_tensorrt_before_8_5_is_too_old(cuda: FakeCuda, path: Path) -> None:
    trt = fake_trt()
    trt.IExecutionContext = object
    with pytest.raises(MissingTool, match=r"too old: kdedge needs 8\.5"):
        open_engine(trt, path, {})


def test_missing_pycuda_names_the_extra(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(MissingTool, match="pycuda is not installed"):
        open_engine(fake_trt(), path, {})
