import importlib
import json
from pathlib import Path

import pytest
import torch

from kdedge.core.console import progress_bar
from kdedge.core.recipe import Data
from kdedge.distill.job import make_fabric
from kdedge.distill.trainer import PhaseRun

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAIR = ["--student", "resnet8", "--conv", "depthwise", "--teacher", "resnet8"]
TINY = ["--device", "cpu", *PAIR, "--batch", "4", "--rounds", "2", "--seconds", "0.001", "--threads", "1"]


@pytest.fixture
def loop(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # it imports its neighbor, and its workers do, by name
    threads = torch.get_num_threads()
    yield importlib.import_module("loop")
    torch.set_num_threads(threads)


def test_loop_writes_every_round_of_every_contender(loop, tmp_path):
    loop.main([*TINY, "--json", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())
    (result,) = written["results"]
    assert result["pair"] == {"student": "resnet8", "conv": "depthwise", "teacher": "resnet8"}
    assert result["steps"] == 2
    assert {name: len(speeds) for name, speeds in result["images_per_second"].items()} == {
        "bare": 2,
        "kdedge": 2,
        "naive": 2,
    }
    assert min(speed for speeds in result["images_per_second"].values() for speed in speeds) > 0
    assert written["setting"] == {"batch": 4, "channels_last": False, "rounds": 2}
    assert "| resnet8 (depthwise) from resnet8 |" in (tmp_path / "out.md").read_text()


def test_ratios_are_taken_within_a_round(loop):
    speeds = {"bare": [100.0, 50.0, 10.0], "kdedge": [90.0, 50.0, 11.0], "naive": [10.0, 10.0, 10.0]}
    result = loop.Result(loop.PAIRS[0], 1, speeds)
    assert result.ratios("bare") == pytest.approx([0.9, 1.0, 1.1])
    assert loop.spread(result.ratios("bare")) == "1.000 (0.900..1.100)"
    assert result.median("kdedge") == 50.0


def test_bare_and_kdedge_take_the_same_step(loop):
    """From the same weights and images, one update each; without augmentation, which they draw differently."""
    contenders = importlib.import_module("contenders")
    setting = loop.Setting(torch.device("cpu"), 1, 4, False, 1, 0.0)
    part = loop.images(4)
    job = contenders.make_job(loop.PAIRS[0], setting, part)
    job.data = Data(name="random")
    run = PhaseRun(make_fabric(job.run), job, 0, 0, None, None)
    with run.objective, run.staff() as staff, progress_bar("", 1, shown=False) as bar:
        run.run_epoch(0, staff, bar)
    bare = contenders.Bare(loop.PAIRS[0], setting)
    bare.step(run.normalize(part.images), part.labels)
    for ours, other in zip(job.student.parameters(), bare.student.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-6)
