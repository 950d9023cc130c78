"""A recipe with every part of the quickstart, small enough to be run in seconds."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import Forkserver, Halt, Process

RECIPE = """\
# The quickstart with fewer images and epochs.
version: 1
data: {name: digits, train_limit: 800, validation: 0.1, augment: {crop_padding: 1}}
student:
  name: resnet8
  options: {conv: depthwise}
teachers:
  - name: resnet8
    training: {epochs: 3, batch: 32, optimizer: {lr: 0.1}}
phases:
  - epochs: 5
    batch: 32
    optimizer: {lr: 0.1, warmup: 0.1}
    cross_entropy: {weight: 0.1}
    methods:
      - {name: logits, weight: 0.9}
      - {name: self_distill, weight: 0.5}
run: {accelerator: cpu, threads: 1}
export: {preset: onnxruntime_cpu, calibration: {images: 64}}
profile: {processes: 2, seconds: 0.05, warmup_cap: 0.5, threads: 1}
gate:
  budgets:
    - {metric: student/top1, min: 0.5}
    - {metric: student/params, max: 27000}
"""


def write_recipe(folder: Path, name: str = "mini", text: str = RECIPE) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Finished:
    """A folder with mini.yaml and its run, which was killed in the student's third epoch and then started again."""

    folder: Path
    killed: Process
    completed: Process

    @property
    def recipe(self) -> Path:
        return self.folder / "mini.yaml"

    @property
    def run(self) -> Path:
        return next(self.folder.glob("runs/mini-*"))

    def json(self, name: str) -> Any:
        return json.loads((self.run / name).read_text())


def finish(server: Forkserver, folder: Path) -> Finished:
    write_recipe(folder)
    # The sixteenth epoch to be trained, after three of the teacher, five of the baseline and five of its control.
    code, killed = server.run(["run", "mini.yaml"], folder, Halt("kdedge.distill.trainer:PhaseRun.validate", 16))
    if code != -signal.SIGKILL:
        raise RuntimeError(killed.stderr)
    code, completed = server.run(["run", "mini.yaml"], folder)
    if code != 0:
        raise RuntimeError(completed.stderr)
    return Finished(folder, killed, completed)
