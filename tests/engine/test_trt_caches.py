"""What builds keep for later ones: calibrated ranges and the times of tactics, against fakes of each version."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faketrt import FakeTRT

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine import trt_cache

CALIBRATING = ["8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11"]
FP32 = [("conv", "CONVOLUTION", "FLOAT"), ("pool", "POOLING", "FLOAT")]


@pytest.fixture
def images(tmp_path: Path) -> str:
    np.savez(tmp_path / "images.npz", images=np.zeros((11, 3, 8, 8), np.float32))
    return str(tmp_path / "images.npz")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """pycuda, and what was copied to the GPU."""
    copied: list[Any] = []
    fake = ModuleType("pycuda.driver")
    context = SimpleNamespace(push=lambda: None)
    fake.init = lambda: None  # type: ignore[attr-defined]
    fake.Device = lambda number: SimpleNamespace(retain_primary_context=lambda: context)  # type: ignore[attr-defined]
    fake.Context = SimpleNamespace(pop=lambda: None)  # type: ignore[attr-defined]
    fake.mem_alloc = lambda size: size  # type: ignore[attr-defined]
    fake.memcpy_htod = lambda to, array: copied.append((to, array.shape))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    return copied


@pytest.mark.parametrize("version", CALIBRATING)
@pytest.mark.parametrize("calibrator", ["entropy", "minmax"])
def test_calibrator_gives_full_batches_once_and_then_what_it_kept(
    build_fake: Any, images: str, cuda: list[Any], version: str, calibrator: str
) -> None:
    options = {"calibration": images, "calibrator": calibrator, "max_batch": 4}
    first, second = (build_fake(FakeTRT(version, FP32), **options) for _ in range(2))
    assert first.trt.calibrated == [4, 4]
    assert cuda == [(4 * 3 * 8 * 8 * 4, (4, 3, 8, 8))] * 2
    assert second.trt.calibrated == [b"ranges"]
    assert (first.trt.flags, first.trt.network_flags, first.precision) == ({"INT8"}, 1, {"int8": 2})
    assert [profile.shapes[0][1:] for profile in first.trt.profiles] == [
        ((1, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8)),
        ((4, 3, 8, 8), (4, 3, 8, 8), (4, 3, 8, 8)),
    ]
    assert first.sidecar["options"]["calibration"] == "images.npz"


def test_other_images_are_calibrated_anew(build_fake: Any, images: str, cuda: list[Any]) -> None:
    build_fake(FakeTRT("8.6.1", FP32), calibration=images, max_batch=4)
    np.savez(images, images=np.ones((4, 3, 8, 8), np.float32))
    assert build_fake(FakeTRT("8.6.1", FP32), calibration=images, max_batch=4).trt.calibrated == [4]


def test_calibrators_that_are_gone_are_told_with_what_to_do(build_fake: Any, images: str) -> None:
    with pytest.raises(
        KdedgeError, match=r"option calibration .*: TensorRT 11\.4\.0\.106 takes int8 as Q/DQ"
    ) as caught:
        build_fake(FakeTRT("11.4.0.106", FP32), calibration=images)
    assert caught.value.fix == "kdedge export --preset tensorrt"


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pixels": np.zeros((8, 3, 8, 8))}, "it needs an array for each of images"),
        ({"images": np.zeros((7, 3, 8, 8))}, r"images is \[7, 3, 8, 8\], a batch of it \[8, 3, 8, 8\]"),
        ({"images": np.zeros((8, 3, 9, 9))}, r"images is \[8, 3, 9, 9\]"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused(
    build_fake: Any, images: str, cuda: list[Any], arrays: dict[str, Any], said: str
) -> None:
    np.savez(images, **arrays)
    with pytest.raises(ModelError, match=f"calibration data .*images.npz: {said}"):
        build_fake(FakeTRT("8.6.1", FP32), calibration=images)


@pytest.mark.parametrize("content", [None, b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_calibration_data_that_is_no_archive_is_refused(
    build_fake: Any, tmp_path: Path, cuda: list[Any], content: bytes | None
) -> None:
    path = tmp_path / "data.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"calibration data .*data\.npz: "):
        build_fake(FakeTRT("8.6.1", FP32), calibration=str(path))


@pytest.fixture
def on_orin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_cache, "gpu", lambda: "Orin 8.7")
    monkeypatch.setattr(trt_cache, "power_mode", lambda: "pmode:0002")


def caches(folder: Path) -> list[Path]:
    return sorted((folder / "cache/tensorrt").glob("*.timing"))


@pytest.mark.usefixtures("on_orin")
def test_times_of_one_build_are_where_the_next_begins(build_fake: Any, tmp_path: Path) -> None:
    assert build_fake(FakeTRT("10.3.0", FP32)).trt.timings == b""
    assert build_fake(FakeTRT("10.3.0", FP32)).trt.timings == b" and more"
    (path,) = caches(tmp_path)
    assert path.read_bytes() == b" and more and more"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("on_orin")
def test_times_are_kept_apart_by_what_decides_them(
    build_fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_fake(FakeTRT("10.3.0", FP32))
    build_fake(FakeTRT("10.13.3.9", FP32))
    build_fake(FakeTRT("10.3.0", FP32), optimization_level=5)
    build_fake(FakeTRT("10.3.0", FP32), weak_types=["fp16"])
    monkeypatch.setattr(trt_cache, "power_mode", lambda: "pmode:0000")
    build_fake(FakeTRT("10.3.0", FP32))
    monkeypatch.setattr(trt_cache, "gpu", lambda: "Orin Nano 8.7")
    build_fake(FakeTRT("10.3.0", FP32))
    assert len(caches(tmp_path)) == 6


@pytest.mark.usefixtures("on_orin")
@pytest.mark.parametrize("kept", [b"broken", b"of another GPU"])
def test_cache_that_tensorrt_does_not_take_is_replaced(build_fake: Any, tmp_path: Path, kept: bytes) -> None:
    build_fake(FakeTRT("10.3.0", FP32))
    (path,) = caches(tmp_path)
    path.write_bytes(kept)
    assert build_fake(FakeTRT("10.3.0", FP32)).trt.timings == b""
    assert path.read_bytes() == b" and more"


@pytest.mark.usefixtures("on_orin")
def test_timing_cache_can_be_left_out(build_fake: Any, tmp_path: Path) -> None:
    build_fake(FakeTRT("10.3.0", FP32), timing_cache=False)
    assert caches(tmp_path) == []


@pytest.mark.usefixtures("on_orin")
def test_engine_is_whole_without_a_place_for_the_cache(build_fake: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert build_fake(FakeTRT("10.3.0", FP32)).precision == {"fp32": 2}


def test_power_mode_is_the_one_that_nvpmodel_keeps(tmp_path: Path) -> None:
    assert trt_cache.power_mode(tmp_path) == ""
    (tmp_path / "var/lib/nvpmodel").mkdir(parents=True)
    (tmp_path / "var/lib/nvpmodel/status").write_text("pmode:0002\nfmode:quiet\n")
    assert trt_cache.power_mode(tmp_path) == "pmode:0002"
