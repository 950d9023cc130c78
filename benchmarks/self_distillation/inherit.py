"""Does a lightened network gain from the dense network's weights?

    python benchmarks/self_distillation/inherit.py

The pretrained ResNet-20 for CIFAR-10 is lightened and trained for a few epochs on the labels alone, from fresh weights
and from what can be kept of the dense ones, with three seeds.  Writes results/inherit.json and
.md.  CIFAR-10 and cifar_teachers/ come from KDEDGE_DATA.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from run import markdown, spread

from kdedge.core.load import load_recipe
from kdedge.core.report import TrainingReport
from kdedge.core.rundir import read_record, write_json, write_text
from kdedge.pipeline.chain import perform
from kdedge.pipeline.environment import environment
from kdedge.pipeline.project import TRAINING, open_project

HERE = Path(__file__).parent
COLUMNS = ("convolutions", "start", "top-1")


def trained(changes: Sequence[str], runs: Path) -> TrainingReport:
    project = open_project(load_recipe(str(HERE / "inherit.yaml"), list(changes)), runs)
    with project.run.locked():
        project.save()
        perform(project, "distill")
    return read_record(project.run / TRAINING, TrainingReport)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=HERE / "runs")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args(arguments)
    found: dict[str, list[float]] = {}
    for conv, start, seed in product(("depthwise", "grouped"), ("random", "teacher"), range(given.seeds)):
        changes = [
            f"name=inherit-{conv}-{start}-{seed}",
            f"seed={seed}",
            f"student.lighten={{conv: {conv}, init: {start}}}",
            *given.changes,
        ]
        report = trained(changes, given.runs.absolute())
        found.setdefault(f"{conv}, {start}", []).append(report.student.accuracy)
    rows = [[*name.split(", "), spread(top1s)] for name, top1s in found.items()]
    write_json(given.results / "inherit.json", {"top1": found, "changes": given.changes, "environment": environment()})
    made = ", ".join(f"{key} {value}" for key, value in environment().items())
    text = (
        f"{report.train_images} training images, {report.student.epochs} epochs on the labels alone. "
        "Top-1 on the 10,000 test images in percent, mean and sample standard deviation over seeds."
    )
    write_text(given.results / "inherit.md", f"{text}\n\n{markdown(COLUMNS, rows)}\n\n{made}.\n")


if __name__ == "__main__":
    main()
