"""TensorRT as one version has it: objects with the members that its list names, which refuse all others.

The network is whatever a test says; the "engine" is its layers as the builder would log them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtnames import MODULE, members

from kdedge.engine.base import backend
from kdedge.engine.sidecar import sidecar_path

DTYPE = {"FLOAT": "FP32", "HALF": "FP16", "INT8": "Int8"}
FLAGS = {"INT8": "INT8", "FP16": "HALF"}  # what a weakly typed builder chooses, the first that it may


class Enumeration:
    """Its members are their names, which is what a test wants to see."""

    def __init__(self, kind: str, version: str) -> None:
        for name, value in members(kind, version).items():
            setattr(self, name, Member(name, value))


class Member(int):
    name: str

    def __new__(cls, name: str, value: int) -> "Member":
        made = super().__new__(cls, value)
        made.name = name
        return made


class Listed:
    """Has the given members if the version lists them, and lets no other be set."""

    def __init__(self, kind: str, version: str, **values: Any) -> None:
        known = members(kind, version)
        object.__setattr__(self, "_known", known)
        for name, value in values.items():
            if name in known:
                object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._known:  # type: ignore[attr-defined]
            raise AttributeError(f"this TensorRT has no {name}")
        object.__setattr__(self, name, value)


class Log:
    ERROR, INTERNAL_ERROR, INFO = "error", "internal", "info"


class FakeTRT:
    """The module.

    Args:
        layers: name, LayerType's member and DataType's member of the output, of each layer of the parsed network.
        on_dla: the layers that an accelerator takes.
        builds: the type that layers are built in whatever was asked; by default what flags and network say.
    """

    def __init__(
        self,
        version: str,
        layers: list[tuple[str, str, str]],
        on_dla: tuple[str, ...] = (),
        dla_cores: int = 0,
        builds: str = "",
        shape: tuple[int, ...] = (-1, 3, 8, 8),
    ) -> None:
        self.__version__ = version
        self._layers, self._on_dla, self._dla_cores, self._builds, self._shape = (
            layers,
            on_dla,
            dla_cores,
            builds,
            shape,
        )
        self.flags: set[str] = set()
        self.network_flags = 0
        self.config: Any = None
        self.profiles: list[Any] = []
        self.calibrated: list[Any] = []
        self.timings = b""
        own = {
            "Builder": self._builder,
            "OnnxParser": lambda network, log: self._listed("OnnxParser", parse_from_file=lambda path: True),
            "ILogger": Log,
            "init_libnvinfer_plugins": lambda log, namespace: True,
            "IInt8EntropyCalibrator2": object,
            "IInt8MinMaxCalibrator": object,
        }
        for name in members(MODULE, version):
            setattr(self, name, own.get(name) or Enumeration(name, version))

    def _listed(self, kind: str, **values: Any) -> Listed:
        return Listed(kind, self.__version__, **values)

    def _builder(self, log: Any) -> Listed:
        self._log = log
        return self._listed(
            "Builder",
            num_DLA_cores=self._dla_cores,
            create_network=self._network,
            create_builder_config=self._config,
            create_optimization_profile=self._profile,
            build_serialized_network=self._build,
        )

    def _network(self, flags: int) -> Listed:
        self.network_flags = flags
        tensor = self._listed("ITensor", name="images", shape=self._shape)
        return self._listed(
            "INetworkDefinition",
            num_inputs=1,
            get_input=lambda index: tensor,
            num_layers=len(self._layers),
            get_layer=lambda index: self._layer(*self._layers[index]),
        )

    def _layer(self, name: str, kind: str, dtype: str) -> Listed:
        types = members("LayerType", self.__version__), members("DataType", self.__version__)
        output = self._listed("ITensor", dtype=types[1].get(dtype, -1))
        return self._listed(
            "ILayer", name=name, type=types[0].get(kind, -1), num_outputs=1, get_output=lambda index: output
        )

    def _config(self) -> Listed:
        self.flags = {"TF32"}
        self.config = self._listed(
            "IBuilderConfig",
            set_flag=lambda flag: self.flags.add(flag.name),
            clear_flag=lambda flag: self.flags.discard(flag.name),
            set_memory_pool_limit=lambda pool, size: None,
            add_optimization_profile=self.profiles.append,
            set_calibration_profile=self.profiles.append,
            can_run_on_DLA=lambda layer: layer.name in self._on_dla,
            create_timing_cache=lambda content: None if content == b"broken" else content,
            set_timing_cache=self._begin_timings,
            get_timing_cache=lambda: self._listed("ITimingCache", serialize=lambda: self.timings + b" and more"),
            int8_calibrator=None,
            builder_optimization_level=3,
        )
        return self.config  # type: ignore[no-any-return]

    def _begin_timings(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.timings = cache
        return cache != b"of another GPU"

    def _profile(self) -> Listed:
        shapes: list[Any] = []
        made = self._listed("IOptimizationProfile", set_shape=lambda *given: shapes.append(given))
        object.__setattr__(made, "shapes", shapes)
        return made

    def _build(self, network: Any, config: Any) -> bytes:
        if getattr(config, "int8_calibrator", None) is not None:
            self._calibrate(config.int8_calibrator)
        for name, *_ in self._layers:
            if self._dla_cores:
                place = f"[DlaLayer] {{ForeignNode[{name}]}}" if name in self._on_dla else f"[GpuLayer] SHUFFLE: {name}"
                self._log.log("info", place)
        strong = members("NetworkDefinitionCreationFlag", self.__version__).get("STRONGLY_TYPED")
        keeps_types = strong is not None and bool(self.network_flags & 1 << strong)
        chosen = "" if keeps_types else next((dtype for flag, dtype in FLAGS.items() if flag in self.flags), "")
        for name, _, dtype in self._layers:
            given = f"{{ Name: x, Format/Datatype: Row major linear {DTYPE[self._builds or chosen or dtype]} }}"
            line = f"Name: {name}, LayerType: CaskConvolution, Inputs: [ {given}], Outputs: [ {{ Name: y }}]\n"
            self._log.log("info", line)
        return json.dumps(sorted(self.flags)).encode()

    def _calibrate(self, calibrator: Any) -> None:
        cache = calibrator.read_calibration_cache()
        if cache is not None:
            self.calibrated.append(cache)
            return
        while calibrator.get_batch(["images"]) is not None:
            self.calibrated.append(calibrator.get_batch_size())
        calibrator.write_calibration_cache(memoryview(b"ranges"))


@dataclass
class Built:
    trt: FakeTRT
    precision: dict[str, int]
    sidecar: dict[str, Any]


def build_engine(trt: FakeTRT, folder: Path, options: dict[str, Any]) -> Built:
    """As kdedge builds, where `import tensorrt` gives `trt`."""
    onnx, engine = folder / "net.onnx", folder / "net.engine"
    onnx.write_bytes(b"a network")
    precision = backend("trt").build(onnx, engine, options)
    return Built(trt, precision, json.loads(sidecar_path(engine).read_text()))
