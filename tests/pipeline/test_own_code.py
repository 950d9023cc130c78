"""A student and a teacher from a user's own Python file."""

import json
from pathlib import Path

import pytest
from forked import Forkserver

NET = """\
from torch import nn


def block(inputs, outputs, stride):
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Net(nn.Module):
    def __init__(self, classes, channels, width):
        super().__init__()
        self.first = block(channels, width, 1)
        self.second = block(width, 2 * width, 2)
        self.linear = nn.Linear(2 * width, classes)

    def forward(self, images):
        return self.linear(self.second(self.first(images)).mean(dim=(2, 3)))


def build(classes, image_shape, width=8):
    return Net(classes, image_shape[0], width)
"""
RECIPE = """\
version: 1
data: {name: digits, train_limit: 200}
student: {name: "net.py:build"}
teachers:
  - {name: "net.py:build", options: {width: 16}, training: {epochs: 1, batch: 32}}
phases:
  - {epochs: 1, batch: 32, methods: [{name: attention, options: {stages: [stage1]}}]}
baseline: false
run: {accelerator: cpu, threads: 1}
export: {preset: onnxruntime_cpu, precisions: [fp32]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "own.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize("command", ["run", "distill", "check"])
def test_recipe_that_names_a_file_asks_for_consent(forkserver: Forkserver, folder: Path, command: str) -> None:
    code, process = forkserver.run([command, "own.yaml"], folder)
    assert code == 2
    assert "net.py:build" in process.stderr
    assert "give --allow-code" in process.stderr
    assert not list(folder.glob("runs/*/student"))


@pytest.mark.parametrize("devices", [1, 2])
def test_own_networks_train_and_export(forkserver: Forkserver, folder: Path, devices: int) -> None:
    changes = ["--set", f"run.devices={devices}", "--allow-code"]
    code, process = forkserver.run(["distill", "own.yaml", *changes], folder)
    assert code == 0, process.stderr
    run = next(folder.glob("runs/own-*"))
    report = json.loads((run / "training.json").read_text())
    assert report["student"]["params"] == 9 * 8 + 16 + 9 * 8 * 16 + 32 + 16 * 10 + 10
    assert report["teachers"][0]["source"] == "trained"
    code, process = forkserver.run(["export", "--allow-code"], folder)
    assert code == 0, process.stderr
    assert (run / "export/student.fp32.onnx").is_file()


def test_changed_file_is_another_student(forkserver: Forkserver, folder: Path) -> None:
    for text, said in ((NET, "epoch"), (NET, "unchanged"), (NET + "\n# changed\n", "epoch")):
        (folder / "net.py").write_text(text)
        code, process = forkserver.run(["distill", "own.yaml", "--allow-code"], folder)
        assert code == 0, process.stderr
        assert ("unchanged" in process.stdout + process.stderr) == (said == "unchanged")


def test_layers_of_an_own_network_are_found(forkserver: Forkserver, folder: Path) -> None:
    code, process = forkserver.run(["layers", "net.py:build", "--allow-code", "--json"], folder)
    assert code == 0, process.stderr
    tapped = {row[0]: row[-1] for row in json.loads(process.stdout) if row[-1]}
    assert tapped == {"second": "stage1"}  # one convolution before it is a stem
