"""Int8 scales calibrated by TensorRT itself, where an accelerator or an old version does not take Q/DQ; up to 10.x.

Part of the device closure: Python 3.8, standard library and numpy; `trt` is the tensorrt module.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine.sidecar import sha256_file
from kdedge.engine.trt_cache import cache_file, read_cache, write_cache
from kdedge.engine.trt_cuda import current_context

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays

KINDS = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


def load_batches(path: Path, shapes: dict[str, tuple[int, ...]]) -> list[Arrays]:
    """Full batches of these shapes, in the order of the file; rows that fill none are left out.

    Raises:
        ModelError: the file is missing or broken, or does not hold a batch for every input.
    """
    what = f"calibration data {path}"
    try:
        with path.open("rb") as file:  # numpy leaves a broken archive open
            content = np.load(file)
            if not hasattr(content, "files"):
                raise ModelError(what, "it is one array, not an .npz archive")
            arrays = {name: np.ascontiguousarray(content[name], np.float32) for name in shapes}
    except KeyError:
        raise ModelError(what, "it needs an array for each of " + ", ".join(shapes)) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(what, str(error)) from error
    for name, shape in shapes.items():
        if arrays[name].shape[1:] != shape[1:] or len(arrays[name]) < shape[0]:
            raise ModelError(what, f"{name} is {list(arrays[name].shape)}, a batch of it {list(shape)}")
    rows = {name: shape[0] for name, shape in shapes.items()}
    steps = min(len(arrays[name]) // rows[name] for name in shapes)
    return [{name: arrays[name][step * rows[name] :][: rows[name]] for name in shapes} for step in range(steps)]


@contextmanager
def calibrator_for(trt: Any, onnx: Path, shapes: dict[str, tuple[int, ...]], settings: dict[str, Any]) -> Iterator[Any]:
    """A calibrator for a network with inputs of these shapes; what it finds is kept for the same network and data.

    Raises:
        KdedgeError: this version has no calibrators.
        ModelError: the data does not fit.
        MissingTool: no pycuda.
    """
    base = getattr(trt, KINDS[settings["calibrator"]], None)
    if base is None:
        raise KdedgeError(
            "option calibration of backend trt",
            f"TensorRT {trt.__version__} takes int8 as Q/DQ in the ONNX file only",
            "kdedge export --preset tensorrt",
        )
    data = Path(settings["calibration"])
    batches = load_batches(data, shapes)
    key = {"onnx": sha256_file(onnx), "data": sha256_file(data), "kind": settings["calibrator"]}
    path = cache_file("calibration", dict(key, tensorrt=str(trt.__version__), shapes=shapes))
    with current_context("calibrating int8") as cuda:
        yield make_calibrator(base, cuda, batches, path)


def make_calibrator(base: Any, cuda: Any, batches: list[Arrays], path: Path) -> Any:
    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self._next = iter(batches)
            self._device = {name: cuda.mem_alloc(array.nbytes) for name, array in batches[0].items()}

        def get_batch_size(self) -> int:
            return len(next(iter(batches[0].values())))

        def get_batch(self, names: list[str]) -> list[int] | None:
            batch = next(self._next, None)
            if batch is None:
                return None
            for name in names:
                cuda.memcpy_htod(self._device[name], batch[name])
            return [int(self._device[name]) for name in names]

        def read_calibration_cache(self) -> bytes | None:
            return read_cache(path) or None

        def write_calibration_cache(self, cache: Any) -> None:
            write_cache(path, bytes(cache))

    return Calibrator()
