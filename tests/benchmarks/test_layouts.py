import importlib
from pathlib import Path

import pytest


@pytest.fixture
def layouts(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("layouts")


def test_every_layout_is_measured_beside_fp32(layouts, monkeypatch):
    monkeypatch.setitem(layouts.NETWORKS, "resnet8", (8, {"conv": "depthwise"}))
    rows = layouts.measure("resnet8", rounds=2)
    assert [row[1] for row in rows] == ["fp32", *layouts.LAYOUTS]
    assert {row[0] for row in rows} == {"resnet8"}
    assert rows[0][3:] == ["1.00", "0 of 17"]
    assert all(float(row[2]) > 0 and int(row[4].split(" of ")[0]) > 0 for row in rows[1:])
