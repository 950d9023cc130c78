"""What a recipe gains over several seeds: teacher, student on the labels alone, distilled student, int8.

    python benchmarks/seeds.py quickstart --seeds 5

Each seed is a run of its own (kdedge's, so it resumes), teacher included.  Top-1 on the test split after the last
epoch, in percent: the mean over seeds and its sample standard deviation.
"""

import argparse
import statistics
from pathlib import Path

from kdedge.core.console import show_table
from kdedge.core.load import load_recipe
from kdedge.core.report import ExportReport, TrainingReport
from kdedge.core.rundir import write_json, write_text
from kdedge.pipeline.chain import perform
from kdedge.pipeline.environment import environment
from kdedge.pipeline.project import EXPORT, TRAINING, open_project

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("network", "mean", "deviation", "seeds")


def accuracies(recipe: str, seed: int, changes: list[str]) -> dict[str, float]:
    """Top-1 in percent of each network of one seed's run."""
    project = open_project(load_recipe(recipe, [*changes, f"seed={seed}"]))
    with project.run.locked():
        project.save()
        for command in ("distill", "export"):
            perform(project, command)
    training = TrainingReport.model_validate_json((project.run / TRAINING).read_text(encoding="utf-8"))
    export = ExportReport.model_validate_json((project.run / EXPORT).read_text(encoding="utf-8"))
    int8 = export.quality("int8")
    found = {
        "teacher": training.teacher and training.teacher.accuracy,
        "student, labels only": training.baseline and training.baseline.accuracy,
        "student": training.student.accuracy,
        "student int8": int8 and int8.top1,
    }
    return {name: 100 * top1 for name, top1 in found.items() if top1 is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    seeds = list(range(arguments.seeds))
    runs = [accuracies(arguments.recipe, seed, arguments.changes) for seed in seeds]
    rows = []
    for name in runs[0]:
        values = [run[name] for run in runs]
        deviation = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
        rows.append([name, f"{statistics.mean(values):.2f}", deviation, " ".join(f"{value:.2f}" for value in values)])
    show_table(f"{arguments.recipe}: top-1 in percent over seeds {seeds}", COLUMNS, rows)
    made_with = environment()
    stem = RESULTS / f"seeds-{Path(arguments.recipe).stem}"
    write_json(stem.with_suffix(".json"), {"changes": arguments.changes, "runs": runs, "environment": made_with})
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    made = ", ".join(f"{key} {value}" for key, value in made_with.items())
    changed = f"Changed: {', '.join(arguments.changes)}.\n" if arguments.changes else ""
    write_text(stem.with_suffix(".md"), "\n".join(lines) + f"\n\n{changed}{made}.\n")


if __name__ == "__main__":
    main()
