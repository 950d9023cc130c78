"""What does a step of each method take, next to one of plain KD?

    python benchmarks/methods/cost.py

ResNet-56 teaches ResNet-20 at batch 64, and is asked at every step; images are noise, since speed and memory do not
depend on what is in them.  Every method with its default options, and the shipped systems with all their phases, each
in a process of its own, in turn with plain KD.  Writes results/cost.json and cost.md, and goes on where it stopped.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from kdedge.bench.contenders import Contender, contender
from kdedge.bench.cost import ROUNDS, Cost, cost_of
from kdedge.bench.memory import return_what_is_freed
from kdedge.bench.methods import BASE
from kdedge.bench.table import is_dear, times, why_dear
from kdedge.bench.workers import perform_all
from kdedge.core import console
from kdedge.core.console import many, size
from kdedge.core.load import load_recipe
from kdedge.core.recipe import Recipe
from kdedge.core.rundir import write_json, write_text
from kdedge.data.outline import Outline, stand_in
from kdedge.distill.base import METHODS
from kdedge.distill.job import Job
from kdedge.pipeline.environment import environment
from kdedge.pipeline.networks import build, build_peers, untrained_teacher

HERE = Path(__file__).parent
CHANGES = ["data.augment.views=null", "run.channels_last=true", "phases.0.optimizer.lr=1e-6"]
"""Nothing is to be learned from noise, and a random teacher's features are large."""
SYSTEMS = ("hybrid_attention", "ccskd", "mskd_ssr", "mkd", "spatial_attention")
PLAIN = "logits"
IMAGES = 1024
COLUMNS = ("method", "times KD's", "peak memory", "extra parameters", "notes")


def base(threads: int) -> Recipe:
    return load_recipe(str(BASE), [*CHANGES, f"run.threads={threads}"]).recipe


def make_job(recipe: Recipe, each: Contender) -> Job:
    dataset = stand_in(recipe.data, Outline(100, (3, 32, 32)), IMAGES)
    teachers = tuple(untrained_teacher(teacher, dataset, recipe.seed) for teacher in recipe.teachers)
    student, peers = build(recipe.student, dataset, recipe.seed), build_peers(each.peers, dataset, recipe.seed)
    run = recipe.run.model_copy(update={"devices": 1})
    return Job(each.label, student, dataset, recipe.data, each.phases, run, recipe.seed, HERE, "", teachers, peers)


def measure(threads: int, item: str) -> Cost:
    return_what_is_freed()
    torch.set_num_threads(threads)
    recipe = base(threads)
    return cost_of(*(partial(make_job, recipe, contender(each, recipe)) for each in (item, PLAIN)))


def row(item: str, cost: Cost) -> list[str]:
    notes = why_dear(cost) if is_dear(cost) else "-"
    return [item, times(cost), size(cost.memory_bytes), many(cost.extra_params), notes]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args(arguments)
    methods = [name for name in METHODS.names() if "classify" in METHODS.get(name).tasks]
    items = ["labels", *methods, *(f"recipe:{name}" for name in SYSTEMS)]
    path = given.results / "cost.json"
    known = json.loads(path.read_text())["costs"] if path.exists() else {}
    costs = {item: Cost.model_validate(known[item]) for item in items if item in known}

    def done(item: str, cost: Cost) -> None:
        costs[item] = cost
        write(given.results / "cost", {item: costs[item] for item in items if item in costs}, given.threads)
        console.say(f"{item} {times(cost)}")

    left = [item for item in items if item not in costs]
    found = perform_all(partial(measure, given.threads), left, 1, done)
    if errors := [one for one in found if isinstance(one, Exception)]:
        raise errors[0]


def write(stem: Path, costs: dict[str, Cost], threads: int) -> None:
    made_with, kept = environment(), {item: cost.model_dump(mode="json") for item, cost in costs.items()}
    write_json(stem.with_suffix(".json"), {"costs": kept, "threads": threads, "environment": made_with})
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(row(item, cost) for item, cost in costs.items())]
    table = "\n".join(f"| {' | '.join(each)} |" for each in rows)
    how = next(iter(costs.values())).memory_how
    machine = ", ".join(f"{key} {value}" for key, value in made_with.items())
    write_text(
        stem.with_suffix(".md"),
        f"ResNet-56 -> ResNet-20, batch 64, 100 classes; {threads} threads. A training step over one of plain KD, "
        f"taken in turn in one process: median and range of {ROUNDS} rounds. Peak memory is the {how} over a few "
        f"steps in a process of its own.\n\n{table}\n\n{machine}.\n",
    )


if __name__ == "__main__":
    main()
