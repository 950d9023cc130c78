import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from kdedge.core.deployment import Profile
from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine.base import backend
from kdedge.profile.measure import parse_shapes, profile_model, summarize
from kdedge.profile.targets import LocalTarget

QUICK = Profile(processes=2, seconds=0.05, warmup_cap=0.5, threads=1)


def test_shapes_are_parsed_by_input():
    parsed = parse_shapes(["image=1x3x224x224", "a=b=7"])
    assert parsed == {"image": (1, 3, 224, 224), "a=b": (7,)}


@pytest.mark.parametrize("text", ["image", "image=", "=1x3", "image=1x", "image=1x0x3", "image=1,3", "image=-1x3"])
def test_shape_that_is_none_ends_in_an_example(text):
    with pytest.raises(KdedgeError) as caught:
        parse_shapes([text])
    assert caught.value.what == f"--shape {text}"
    assert caught.value.fix == "--shape input=1x3x224x224"


def test_shape_given_twice_is_refused():
    with pytest.raises(KdedgeError, match="image already has a shape"):
        parse_shapes(["image=1x3", "image=1x4"])


def reply(latency_ms, *, settled=True, peak=9_000, open_ms=4.0, load=0.0, governor=None, built=None, threads=1):
    """What an agent on an otherwise quiet machine with two CPUs replies."""
    note = {"load": [load, 0.0, 0.0], "cpus_total": 2, **({"governor": governor} if governor else {})}
    sample = {"latency_ms": latency_ms, "open_ms": open_ms, "first_ms": 3.0, "warmup_queries": 10, "warmup_ms": 60.0}
    return {
        "sample": {**sample, "settled": settled, "baseline_bytes": 1_000, "peak_bytes": peak},
        "device": {"match": {"cpus": 2, "cpu_quota": None}, "note": note},
        "memory_method": "as told",
        "provider": "CPUExecutionProvider",
        "precision_built": built or {},
        "shapes": {"x": [4, 3]},
        "options": {"threads": threads},
    }


def summed_up(path, *replies, precision=None):
    return summarize(path, "ort", Profile(warmup_cap=2), "net", precision, list(replies))


def test_report_sums_up_what_the_processes_replied(linear):
    path = linear()
    report = summed_up(
        path,
        reply([1.0, 3.0], peak=4_000, open_ms=5),
        reply([2.0, 2.0], peak=3_000, open_ms=1),
        reply([2.0, 2.0], peak=9_000, open_ms=2),
    )
    assert (report.latency.n, report.latency.processes, report.latency.median, report.latency.mean) == (6, 3, 2, 2)
    assert report.throughput == 2000  # 4 images in 2 ms
    assert (report.batch, report.threads) == (4, 1)
    assert report.peak_memory_bytes == 3_000  # the median of 3000, 2000 and 8000
    assert (report.open_ms, report.first_ms) == (2, 3)
    assert report.samples[0].latency_ms == [1, 3]
    assert report.model_bytes == path.stat().st_size
    assert report.model_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report.device["note"]["memory_method"] == "as told"


def with_sample(answer, **fields):
    return {**answer, "sample": {**answer["sample"], **fields}}


def test_device_latency_is_a_number_of_its_own(linear):
    first, second = (with_sample(reply([5.0, 5.0]), device_ms=times) for times in ([1.0, 3.0], [2.0, 4.0]))
    report = summed_up(linear(), first, second)
    assert (report.latency.median, report.device_latency.median, report.device_latency.n) == (5, 2.5, 4)
    assert report.throughput == 800  # end to end: 4 images in 5 ms


def test_device_latency_that_a_process_lacks_is_none(linear):
    assert summed_up(linear(), with_sample(reply([5.0]), device_ms=[1.0]), reply([5.0])).device_latency is None


def test_memory_is_counted_in_each_way_by_itself(linear):
    device = {"context": 64, "weights": 32}
    used = [{"pss_bytes": 10, "system_bytes": -5}, {"pss_bytes": 30, "system_bytes": None}, {"pss_bytes": 20}]
    memory = summed_up(linear(), *(with_sample(reply([1.0]), device_bytes=device, **each) for each in used)).memory
    assert (memory.process_peak, memory.pss, memory.system, memory.device) == (8_000, 20, -5, device)
    assert summed_up(linear(), reply([1.0])).memory.pss is None


def test_note_when_queries_became_slower_or_faster(linear):
    slower, faster = [1.0] * 600 + [1.1] * 300, [1.2] * 300 + [1.0] * 600
    assert summed_up(linear(), reply(slower + slower[-100:])).notes == ["queries became slower while measured, by 10%"]
    assert summed_up(linear(), reply(faster + faster[-100:])).notes == ["queries became faster while measured, by 17%"]
    assert summed_up(linear(), reply([1.0] * 600 + [1.04] * 400)).notes == []


TEN = [1.0] * 1000


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, []),
        ({"settled": False}, ["the warm-up did not settle within 2 s in 2 of 2 processes"]),
        ({"latency_ms": [1.0] * 60}, ["120 queries are too few for p95, p99 (profile.seconds)"]),
        ({"load": 2.1}, ["the machine was busy: load average above its 2 CPUs"]),
        ({"load": 2.0}, []),
        ({"governor": "powersave"}, ["CPU governor powersave: clocks follow the load"]),
        ({"governor": "performance"}, []),
        ({"threads": 3}, ["3 threads on 2 CPUs that may be used"]),
        ({"built": {"fp32": 4}}, ["fp16 storage in the ONNX file, fp32 compute on CPUExecutionProvider"]),
        ({"built": {"fp32": 1, "fp16": 9}}, []),
    ],
)
def test_notes_say_what_puts_a_number_in_doubt(linear, changes, notes):
    replies = [reply(**{"latency_ms": TEN, **changes})] * 2
    assert summed_up(linear(), *replies, precision="fp16").notes == notes


def test_note_when_int8_was_asked_for_and_nothing_computes_in_it(linear):
    report = summed_up(linear(), reply(TEN, built={"fp32": 4}), precision="int8")
    assert report.notes == ["int8 was asked for, but nothing is computed in it"]


def test_note_when_processes_disagree(linear):
    report = summed_up(linear(), reply(TEN), reply([1.2] * 1000))
    assert report.notes == ["the medians of the processes lie 18% apart"]  # 0.2 of 1.1


def test_note_when_the_device_was_slowed_down(linear):
    slow = {**reply(TEN), "throttled": ["slowed down for heat"]}
    assert summed_up(linear(), reply(TEN), slow).notes == ["slowed down for heat"]


ENERGY = {
    "net_mj": {"mean": 1.25, "std": 0.05, "lowest": 1.2, "highest": 1.3},
    "gross_mj": {"mean": 4.0, "std": None, "lowest": 4.0, "highest": 4.0},
    "power_mw": {"mean": 5000.0, "std": 10.0, "lowest": 4990.0, "highest": 5010.0},
    "idle_mw": 3000.0, "repeats": 3, "inferences": 90, "samples": 1800, "rate_hz": 20.0,
    "source": "rail VDD_IN", "notes": ["not stationary"],
}  # fmt: skip


class Replying(LocalTarget):
    """Keeps the requests; answers them with what is written here."""

    def __init__(self):
        self.requests = []

    def run(self, request):
        self.requests.append(request)
        return {"energy": ENERGY} if request["mode"] == "energy" else reply(TEN)


def test_energy_is_measured_after_latency_and_apart_from_it(linear):
    target = Replying()
    spec = Profile(processes=2, energy=True, lock_clocks=True, power_mode="15W")
    report = profile_model(linear(), "ort", spec, target=target)
    assert [request["mode"] for request in target.requests] == ["latency", "latency", "energy"]
    assert {(request["lock_clocks"], request["power_mode"]) for request in target.requests} == {(True, "15W")}
    assert (target.requests[-1]["repeats"], target.requests[-1]["seconds"]) == (4, 30)
    assert report.energy.net_mj.mean == 1.25
    assert report.notes == [
        "energy per inference: 1.25 +- 0.05 mJ above idle, 4 mJ in all (rail VDD_IN)",
        "not stationary",
    ]


def test_energy_is_not_measured_unless_asked_for(linear):
    target = Replying()
    assert profile_model(linear(), "ort", Profile(processes=1), target=target).energy is None
    assert [request["mode"] for request in target.requests] == ["latency"]


def test_model_is_measured_in_fresh_processes(linear):
    seen = []

    class Watched:
        def describe(self, backend):
            raise AssertionError("not asked for")

        def run(self, request):
            seen.append(request)
            return reply([1.0])

    report = profile_model(linear(), "ort", QUICK, shapes={"x": (4, 3)}, options={"threads": 7}, target=Watched())
    assert len(seen) == len(report.samples) == 2
    assert seen[0]["options"] == {"threads": 1}  # the profile section's wins
    assert seen[0]["shapes"] == {"x": (4, 3)}
    assert report.name == "linear"


def test_engine_is_profiled_with_the_precision_it_was_built_in(linear, tmp_path):
    engine = tmp_path / "linear.engine.onnx"
    backend("ort").build(linear(), engine, {})
    report = profile_model(engine, "ort", QUICK, name="fp32", precision="fp32")
    assert report.precision_built == {"fp32": 1}
    assert (report.name, report.model, report.precision_asked) == ("fp32", "linear.engine.onnx", "fp32")
    assert report.latency.processes == 2
    assert report.latency.n == sum(len(sample.latency_ms) for sample in report.samples)
    assert report.shapes == {"x": [1, 3]}
    assert type(report).model_validate_json(report.model_dump_json()) == report


def test_any_onnx_model_is_profiled_with_the_shapes_it_is_given(needs):
    path = Path(os.environ.get("KDEDGE_DATA", "")) / "models_onnx/yunet_n_dynamic.onnx"
    needs(path.is_file(), "set KDEDGE_DATA to a folder with models_onnx/yunet_n_dynamic.onnx")
    report = profile_model(path, "ort", QUICK, shapes=parse_shapes(["input=2x3x64x96"]))
    assert (report.shapes, report.batch) == ({"input": [2, 3, 64, 96]}, 2)
    with pytest.raises(ModelError) as caught:
        profile_model(path, "ort", QUICK)
    assert str(caught.value) == (
        "yunet_n_dynamic.onnx needs its input shapes: input float32 [?, 3, ?, ?] leaves axis 2, 3 open\n"
        "  kdedge profile yunet_n_dynamic.onnx --shape input=1x3x224x224   (with your sizes)"
    )


def test_model_bytes_count_the_files_that_hold_the_weights(tmp_path, linear):
    path = tmp_path / "apart/linear.onnx"
    path.parent.mkdir()
    onnx.save(onnx.load(linear()), path, save_as_external_data=True, location="linear.data", size_threshold=0)
    report = summed_up(path, reply(TEN))
    assert report.model_bytes == path.stat().st_size + (tmp_path / "apart/linear.data").stat().st_size
    assert np.fromfile(tmp_path / "apart/linear.data", dtype="<f4")[:6].tolist() == [1, 2, 3, 4, 5, 6]


def test_profiling_imports_no_torch():
    program = "import sys, kdedge.profile.measure; print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
