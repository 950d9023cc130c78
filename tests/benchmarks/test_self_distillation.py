"""The verdicts of the self-distillation benchmark, on figures made up here."""

import importlib
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks/self_distillation"


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARK))
    return importlib.import_module("run")


def cell(conv, training, seed, deepest, macs=100):
    early = {} if training == "labels" else {"stage1": 0.25}
    return {
        "network": "net", "conv": conv, "training": training, "seed": seed, "epochs": 10, "fastest_epoch_seconds": 2.0,
        "exits": {**early, "deepest": deepest, "ensemble": 0.5 if early else None}, "int8_top1": deepest,
        "params": 10 * macs, "macs": macs, "bytes": {"fp32": 4096, "int8": 1024},
    }  # fmt: skip


@pytest.mark.parametrize(("deepest", "verdict"), [((0.55, 0.45), "yes"), ((0.52, 0.46), "no")])
def test_verdict_holds_the_mean_against_the_lowest_seed_of_the_original(run, deepest, verdict):
    cells = [cell("dense", "labels", seed, top1) for seed, top1 in enumerate((0.6, 0.5))]
    cells += [cell("grouped 2", "self-distillation", seed, top1) for seed, top1 in enumerate(deepest)]
    dense, light = run.accuracy_rows(run.by_setting(cells))
    columns = dict(zip(run.ACCURACY, light, strict=True))
    assert columns["mean at least the original's lowest"] == verdict
    assert dict(zip(run.ACCURACY, dense, strict=True))["top-1"] == "55.00 ± 7.07"
    assert (columns["exits"], columns["all exits together"]) == ("25.00 ± 0.00", "50.00 ± 0.00")
    assert (columns["seconds"], columns["seeds"]) == ("20", "2")


@pytest.mark.parametrize(
    ("milliseconds", "verdict"),
    [(0.5, "fp32: no, int8: no"), (0.4, "fp32: less than half of it, int8: yes"), (0.1, "fp32: yes, int8: yes")],
)
def test_cost_says_where_fewer_macs_did_not_buy_time(run, milliseconds, verdict):
    """Of the MACs 7/8 are saved; of the time 1/5 at 0.4 ms, 3/5 at 0.2 ms and 4/5 at 0.1 ms."""
    cells = [cell("dense", "labels", 0, 0.5, macs=800), cell("depthwise", "labels", 0, 0.5, macs=100)]
    half = milliseconds / 2 if milliseconds < 0.5 else milliseconds
    times = {"net dense": {"fp32": [0.5], "int8": [0.5]}, "net depthwise": {"fp32": [milliseconds], "int8": [half]}}
    _, light = run.cost_rows(run.by_setting(cells), times)
    assert dict(zip(run.COST, light, strict=True))["did fewer MACs buy time"] == verdict


@pytest.mark.parametrize(("budget", "settings"), [("cpu", (1 + 4) * 2), ("few", (1 + 3) + (1 + 3 + 4))])
def test_grid_is_every_network_convolution_training_and_seed_once(run, budget, settings):
    names = [one.name for one in run.grid(budget, 3)]
    assert len(names) == len(set(names)) == settings * 3


def test_grid_trains_the_originals_first_since_others_start_from_them(run):
    convs = [one.conv for one in run.grid("cpu", 2)]
    assert convs == sorted(convs, key=lambda conv: conv != "dense")


def test_cell_that_starts_from_the_original_reads_that_ones_weights(run, tmp_path):
    cells = {cell.training: cell for cell in run.grid("cpu", 1) if cell.network == "vgg11"}
    open_cell = importlib.import_module("cells").open_cell
    project = open_cell(cells["self-distillation from the original"], "cpu", [], tmp_path)
    original = open_cell(cells["labels"].original, "cpu", [], tmp_path)
    assert project.recipe.teachers[0].checkpoint == str(original.run / "student/weights.safetensors")
    assert project.recipe.student.lighten.init == "teacher"
    assert original.recipe.student.lighten is None
