import re
from pathlib import Path
from typing import Any

import pytest

from kdedge.core.errors import KdedgeError
from kdedge.engine import trt_options
from kdedge.engine.base import backend


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_bach": 4}, "unknown option 'max_bach' of backend trt: did you mean 'max_batch'"),
        ({"min_batch": 1}, "unknown option 'min_batch' of backend trt"),
        ({"max_batch": 0}, "option max_batch of backend trt: expected a whole number from 1 on, given 0"),
        ({"max_batch": "8"}, "given '8'"),
        ({"max_batch": None}, "given None"),
        ({"opt_batch": 9}, "expected opt_batch <= max_batch, given 9 and 8"),
        ({"workspace_mib": 0}, "option workspace_mib of backend trt: expected a whole number from 1 on, given 0"),
        ({"optimization_level": 6}, "expected a whole number from 0 to 5, given 6"),
        ({"dla_core": -1}, "expected a whole number from 0 on, given -1"),
        ({"tf32": 1}, "option tf32 of backend trt: expected true or false, given 1"),
        ({"refit": "yes"}, "option refit of backend trt: expected true or false, given 'yes'"),
        ({"weak_types": "fp16"}, "option weak_types of backend trt: expected a list, given 'fp16'"),
        ({"weak_types": ["fp61"]}, "it has no value 'fp61': did you mean 'fp16'"),
        ({"calibrator": "minimax"}, "it has no value 'minimax': did you mean 'minmax'"),
        ({"calibration": 3}, "option calibration of backend trt: expected the path of an .npz file, given 3"),
        ({"hardware_compatibility": "ampere"}, "did you mean 'ampere_plus'"),
        ({"gpu_fallback": True}, "option gpu_fallback of backend trt: without dla_core everything runs on the GPU"),
        ({"dla_core": 0, "cuda_graph": True}, "option cuda_graph of backend trt: a deep learning accelerator takes no"),
    ],
)
def test_option_that_it_cannot_have_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(KdedgeError, match=re.escape(said)):
        backend("trt").settings(options)


def test_settings_are_settings_again() -> None:
    settings = backend("trt").settings({"weak_types": ("int8", "fp16"), "dla_core": 0, "gpu_fallback": True})
    assert settings["weak_types"] == ["fp16", "int8"]
    assert backend("trt").settings(settings) == settings


def test_every_option_is_described_in_one_place() -> None:
    described = (trt_options.__doc__ or "").split("\n\n")[1]
    names = {name for line in described.splitlines() for name in line[4:27].replace(",", "").split()}
    assert names == set(trt_options.DEFAULTS)


@pytest.mark.parametrize(("kib", "mib"), [(3_900_000, 476), (7_800_000, 952), (65_000_000, 1024), (None, 1024)])
def test_workspace_is_an_eighth_of_the_memory_but_no_more_than_a_gibibyte(
    tmp_path: Path, kib: int | None, mib: int
) -> None:
    if kib:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_text(f"MemTotal:        {kib} kB\nMemFree:  12 kB\n")
    assert trt_options.default_workspace(tmp_path) == mib
