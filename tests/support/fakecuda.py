"""A fake of TensorRT's and pycuda's calls: an engine of y = 2 x for 2 to 4 rows, and libcuda's graphs.

Device memory is arrays under made-up addresses; work given to the stream is done when it is waited for.  The GPU's
clock goes by COPY_MS with each copy and by COMPUTE_MS with each run of the engine.
"""

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
COPY_MS, COMPUTE_MS = 8.0, 0.25


class FakeCuda(ModuleType):
    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.memory: dict[int, Array] = {}
        self.pushed = 0
        self.Device = lambda number: self
        self.Stream = lambda: SimpleNamespace(handle=self, synchronize=self.synchronize)
        self.Context = SimpleNamespace(pop=self.pop)
        self.queue: list[Any] = []
        self.now = 0.0
        self.Event = lambda: FakeEvent(self)

    def pass_by(self, milliseconds: float) -> None:
        self.now += milliseconds

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
        self.queue += [lambda: self.pass_by(COPY_MS), lambda: self.write(to, array)]

    def memcpy_dtoh_async(self, array: Array, start: int, stream: Any) -> None:
        self.queue += [lambda: self.pass_by(COPY_MS), lambda: np.copyto(array, self.read(start, array.shape))]

    def write(self, address: int, array: Array) -> None:
        self.memory[address][: array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)

    def read(self, address: int, shape: tuple[int, ...]) -> Array:
        return self.memory[address][: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.at = cuda, -1.0

    def record(self, stream: Any) -> None:
        self.cuda.queue.append(self.take)

    def take(self) -> None:
        self.at = self.cuda.now

    def synchronize(self) -> None:
        self.cuda.synchronize()

    def time_since(self, earlier: "FakeEvent") -> float:
        return self.at - earlier.at


class FakeProfiler:
    """TensorRT's IProfiler."""


class FakeContext:
    """The execution context; its engine has two layers, the first of which reports in two parts."""

    profiler: Any = None
    enqueue_emits_profile = True

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
        cuda.queue.append(lambda: cuda.pass_by(COMPUTE_MS))
        cuda.queue.append(lambda: cuda.write(self.addresses["y"], 2 * cuda.read(self.addresses["x"], shape)))
        return not self.broken

    def report_to_profiler(self) -> bool:
        assert not self.enqueue_emits_profile
        for name, milliseconds in (("conv + relu", 0.125), ("conv + relu", 0.0625), ("head", 0.0625)):
            self.profiler.report_layer_time(name, milliseconds)
        return True


class FakeLog:
    ERROR, INTERNAL_ERROR = "error", "internal"


def fake_trt(kind: str = "FLOAT", memory: dict[str, Any] | None = None) -> Any:
    context = FakeContext()
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=lambda index: "yx"[index],
        get_tensor_mode=lambda name: {"x": "in", "y": "out"}[name],
        get_tensor_shape=lambda name: (-1, 3),
        get_tensor_dtype=lambda name: SimpleNamespace(name=kind),
        get_tensor_profile_shape=lambda name, profile: [(2, 3), (2, 3), (4, 3)],
        create_execution_context=lambda: context,
        **(memory or {"device_memory_size": 4096}),
    )

    def runtime(log: Any) -> Any:
        def deserialize(content: bytes) -> Any:
            if content == b"engine":
                return engine
            log.log("error", "Version tag does not match")
            return None

        made.runtime = SimpleNamespace(deserialize_cuda_engine=deserialize)
        return made.runtime

    made = SimpleNamespace(
        __version__="10.3.0",
        ILogger=FakeLog,
        IExecutionContext=FakeContext,
        IProfiler=FakeProfiler,
        Runtime=runtime,
        TensorIOMode=SimpleNamespace(INPUT="in"),
        init_libnvinfer_plugins=lambda log, namespace: True,
        context=context,
    )
    return made


def rows(count: int, start: int = 0) -> Array:
    return np.arange(start, start + 3 * count, dtype=np.float32).reshape(count, 3)


class FakeDriver:
    """libcuda: what is given to the stream during a capture is kept, and done at each launch."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.calls, self.refuses = cuda, [], ""
        self.graphs: dict[int, list[Any]] = {}
        self.before: list[Any] = []
        self.does = {
            "cuStreamBeginCapture_v2": self.begin,
            "cuStreamEndCapture": self.end,
            "cuGraphInstantiateWithFlags": self.instantiate,
            "cuGraphLaunch": self.launch,
            "cuGraphDestroy": lambda graph: None,
            "cuGraphExecDestroy": lambda executable: self.graphs.pop(executable.value),
        }

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self.refuses:
                return 901
            self.does[name](*arguments)
            return 0

        return call

    def begin(self, stream: Any, mode: int) -> None:
        self.before, self.cuda.queue = self.cuda.queue, []

    def end(self, stream: Any, graph: Any) -> None:
        graph.value = 7
        self.graphs[7], self.cuda.queue = self.cuda.queue, self.before

    def instantiate(self, executable: Any, graph: Any, flags: Any) -> None:
        executable.value = 70
        self.graphs[70] = self.graphs[graph.value]

    def launch(self, executable: Any, stream: Any) -> None:
        self.cuda.queue += self.graphs[executable.value]


class Pointer:
    """ctypes.c_void_p, which takes numbers alone; by reference it is itself."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return bool(self.value)
