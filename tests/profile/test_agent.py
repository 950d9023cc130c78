import itertools
import json
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from kdedge.core.energy import Energy as Recorded
from kdedge.core.errors import KdedgeError, MissingTool, ModelError
from kdedge.engine.base import Session, TensorSpec
from kdedge.profile import memory
from kdedge.profile.agent import respond, user_error
from kdedge.profile.answers import predict, run_batches
from kdedge.profile.energy import Energy, Spread
from kdedge.profile.memory import resident
from kdedge.profile.timing import device_times

ONE = {"threads": 1}


def ask(request):
    command = [sys.executable, "-m", "kdedge.profile.agent"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=60)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_latency_reply_holds_one_whole_sample(linear):
    request = {"mode": "latency", "backend": "ort", "model": str(linear()), "options": ONE, "batch": 2}
    code, reply, stderr = ask({**request, "seconds": 0.05, "warmup_cap": 0.5})
    assert (code, stderr) == (0, "")
    assert reply["shapes"] == {"x": [2, 3]}
    assert reply["provider"] == "CPUExecutionProvider"
    assert reply["options"]["threads"] == 1
    assert set(reply["device"]) == {"match", "note"}
    assert reply["memory_method"].startswith("VmHWM")
    sample = reply["sample"]
    assert min(sample["latency_ms"]) > 0
    assert sum(sample["latency_ms"]) <= 1000  # milliseconds, not nanoseconds
    assert sample["open_ms"] > 0
    assert sample["first_ms"] > 0
    assert sample["warmup_queries"] >= 10
    assert 0 < sample["baseline_bytes"] <= sample["peak_bytes"] < 2**30
    assert sample["device_ms"] == []
    assert sample["device_bytes"] == {}
    assert 0 < sample["pss_bytes"] < 2**30
    assert abs(sample["system_bytes"]) < 2**36


class Rail:
    """A power source that always reads 5 W."""

    name, scope, closed = "a rail", "nothing left out", False

    def read(self):
        return {"VDD_IN": 5000.0}

    def close(self):
        self.closed = True


def test_energy_reply_is_of_the_model_running_with_the_clocks_as_asked(linear, monkeypatch):
    rail, asked, ran = Rail(), [], []

    def measure(query, source, repeats, seconds):
        asked.append((source, repeats, seconds))
        ran.append(query())
        return Energy(*[Spread(1.0, None, 1.0, 1.0)] * 3, 2.0, 3, 30, 90, 20.0, "VDD_IN", ())

    @contextmanager
    def controlled(lock, mode):
        asked.append((lock, mode))
        yield

    monkeypatch.setattr("kdedge.profile.timing.power_source", lambda: rail)
    monkeypatch.setattr("kdedge.profile.timing.measure_energy", measure)
    monkeypatch.setattr("kdedge.profile.timing.controlled", controlled)
    request = {"mode": "energy", "backend": "ort", "model": str(linear()), "options": ONE, "batch": 2}
    reply = respond({**request, "warmup_cap": 0.05, "repeats": 3, "seconds": 30.0, "power_mode": "15W"})
    assert asked == [(False, "15W"), (rail, 3, 30.0)]
    assert ran[0]["y"].shape == (2, 2)
    assert rail.closed
    assert json.loads(json.dumps(reply))["energy"]["net_mj"]["mean"] == 1.0
    assert Recorded.model_validate(reply["energy"]).inferences == 30


def test_energy_without_a_power_source_is_refused_before_latency_is_measured(linear, monkeypatch):
    def none():
        raise MissingTool("power of this machine", "it has none")

    monkeypatch.setattr("kdedge.profile.timing.power_source", none)
    monkeypatch.setattr("kdedge.profile.timing.timed", lambda _: pytest.fail("latency was measured"))
    with pytest.raises(MissingTool, match="power of this machine"):
        respond({"mode": "latency", "backend": "ort", "model": str(linear()), "energy": True})


def test_build_reply_says_what_the_engine_computes_in(linear, tmp_path):
    engine = tmp_path / "linear.engine.onnx"
    code, reply, _ = ask({"mode": "build", "backend": "ort", "onnx": str(linear()), "out": str(engine), "options": ONE})
    assert (code, reply["precision_built"]) == (0, {"fp32": 1})
    assert set(reply["device"]) == {"match", "note"}
    assert (tmp_path / "linear.engine.onnx.json").is_file()


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        ("ModuleNotFoundError(name='numpy.linalg')", "MissingTool", "numpy is not installed"),
        ("OSError(28, 'No space left on device')", "KdedgeError", "the disk is full"),
        ("MemoryError('Unable to allocate 5.48 TiB')", "KdedgeError", "not enough memory"),
    ],
)
def test_what_only_the_user_can_mend_is_no_traceback(raised, kind, said):
    program = (
        f"from kdedge.profile import agent\ndef respond(request): raise {raised}\nagent.respond = respond\nagent.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], input="{}", capture_output=True, text=True, timeout=60)
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["what"], done.stderr) == (kind, said, "")


@pytest.mark.parametrize("raised", ["ModuleNotFoundError(name='kdedge.engine.absent')", "OSError(5, 'Input/output')"])
def test_bug_keeps_its_traceback(raised):
    with pytest.raises((ModuleNotFoundError, OSError)):
        user_error(eval(raised))


def test_user_errors_come_back_as_json_with_their_exit_code(tmp_path):
    model = str(tmp_path / "absent.onnx")
    code, reply, _ = ask({"mode": "predict", "backend": "ort", "model": model, "arrays": "a", "outputs": "b"})
    assert code == 2
    assert reply["error"] == {
        "kind": "ModelError",
        "what": f"model {model}",
        "why": "there is no such file",
        "fix": "",
    }


def test_unknown_mode_is_refused():
    with pytest.raises(KdedgeError, match="mode 'latancy' of the agent: it has device, doctor, build, latency, "):
        respond({"mode": "latancy"})


def test_what_a_library_prints_stays_out_of_the_reply(linear):
    program = (
        "import os, sys; from kdedge.profile import agent;"
        "agent.respond = lambda request: os.write(1, b'library says hello') and print('me too') or {'fine': 1};"
        "agent.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], input="{}", capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == {"fine": 1}
    assert "library says hello" in done.stderr
    assert "me too" in done.stderr


def test_memory_of_a_process_is_not_that_of_the_one_that_started_it():
    program = "import kdedge.profile.memory as a; print(a.resident('VmHWM'))"
    alone = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    ballast = np.ones(25_000_000)  # 200 MB
    beside = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ballast.nbytes == 200_000_000
    assert int(beside.stdout) < int(alone.stdout) + 20_000_000


def test_resident_memory_grows_with_what_is_allocated():
    before = resident("VmRSS")
    ballast = np.ones(12_500_000)
    assert ballast.nbytes * 0.9 < resident("VmRSS") - before < ballast.nbytes * 1.5


def test_memory_is_that_of_this_process_and_of_the_system(tmp_path, monkeypatch):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/smaps_rollup").write_text("0040-7ffc ---p\nRss:  900 kB\nPss:  700 kB\nPss_Dirty: 1 kB\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable:    6000 kB\n")
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    assert (memory.proportional(), memory.available()) == (716_800, 6_144_000)


def test_memory_that_the_system_does_not_tell_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    assert (memory.proportional(), memory.available()) == (None, None)
    with pytest.raises(KdedgeError, match="/proc/self/status has no VmRSS"):
        resident("VmRSS")


class Timed:
    """A session whose device takes 2 ms, 3 ms, 4 ms, ..."""

    def __init__(self):
        self.times = itertools.count(2.0)

    def device_ms(self):
        return next(self.times)


def test_device_is_timed_for_as_long_as_asked_and_at_least_five_times(monkeypatch):
    clock = iter([0.0, *[0.1 * step for step in range(1, 100)]])
    monkeypatch.setattr("kdedge.profile.timing.time.perf_counter", lambda: next(clock))
    assert device_times(Timed(), seconds=0.75) == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    clock = iter([0.0, *[10.0] * 9])
    assert device_times(Timed(), seconds=0.75) == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_processor_without_a_clock_of_its_own_has_no_device_times():
    assert device_times(Sum(), seconds=1) == []


def write_and_predict(folder, model, arrays, batch):
    np.savez(folder / "in.npz", **arrays)
    paths = {"arrays": str(folder / "in.npz"), "outputs": str(folder / "out.npz")}
    reply = predict({"backend": "ort", "model": str(model), "options": ONE, "batch": batch, **paths})
    with np.load(folder / "out.npz") as outputs:
        return reply, outputs["y"]


@pytest.mark.parametrize("model_batch", ["n", 1, 2, 8])
def test_predict_gives_a_row_for_each_input_at_any_batch(linear, tmp_path, model_batch):
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    reply, y = write_and_predict(tmp_path, linear(model_batch), {"x": x, "labels": np.arange(5)}, batch=2)
    assert reply == {"rows": 5, "outputs": ["y"]}
    np.testing.assert_allclose(y, x @ np.array([[1, 2], [3, 4], [5, 6]]))


def test_predict_without_an_array_for_an_input_names_it(linear, tmp_path):
    with pytest.raises(ModelError, match=r"in.npz: it has no .*x is not a file"):
        write_and_predict(tmp_path, linear(), {"image": np.zeros((1, 3), dtype=np.float32)}, batch=1)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"what is this"])
def test_predict_of_a_broken_archive_names_it(linear, tmp_path, content):
    (tmp_path / "in.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"arrays .*in.npz"):
        predict({"backend": "ort", "model": str(linear()), "options": ONE, "arrays": str(tmp_path / "in.npz")})


def test_predict_of_a_bare_array_wants_an_archive(linear, tmp_path):
    np.save(tmp_path / "in.npy", np.zeros(3))
    with pytest.raises(ModelError, match=r"it is one array, not an .npz archive"):
        predict({"backend": "ort", "model": str(linear()), "options": ONE, "arrays": str(tmp_path / "in.npy")})


class Sum(Session):
    """One number for the whole batch."""

    def __init__(self) -> None:
        specs = [TensorSpec("x", (None,), "float32")], [TensorSpec("total", (), "float32")]
        super().__init__("sum", *specs, provider="numpy", precision={})

    def _infer(self, feeds):
        return {"total": feeds["x"].sum()}

    def close(self):
        pass


def test_output_without_a_row_for_each_input_is_refused():
    with pytest.raises(ModelError, match="output total of sum: it has no row for each of 3 inputs"):
        run_batches(Sum(), {"x": np.ones(3, dtype=np.float32)}, batch=4)


@pytest.mark.parametrize(("rows", "other"), [(0, 0), (3, 2)])
def test_arrays_without_rows_or_of_unequal_length_are_refused(rows, other):
    with pytest.raises(ModelError, match="rows by input"):
        run_batches(Sum(), {"x": np.ones(rows, dtype=np.float32), "z": np.ones(other, dtype=np.float32)}, batch=4)


def test_agent_that_is_told_to_end_leaves_its_with_blocks():
    program = (
        "import os, signal\n"
        "from kdedge.profile import agent\n"
        "def respond(request):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        os.write(2, b'set back')\n"
        "agent.respond = respond\n"
        "agent.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], input="{}", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "set back")
