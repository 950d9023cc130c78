"""The commands that compare."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kdedge.cli.app import AllowCode, AsJson, Overrides, Quiet, app, output
from kdedge.core.errors import require

Seeds = Annotated[int, typer.Option(min=1, help="Trainings of each line of the table.")]
Jobs = Annotated[int, typer.Option(min=1, help="Trainings at a time.")]
bench = typer.Typer(help="Grids of trainings, held against each other.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command()
def methods(
    methods: Annotated[
        str, typer.Option(metavar="M,M,...", help="METHOD, METHOD:PRESET or recipe:NAME; kdedge methods lists them.")
    ] = "",
    pair: Annotated[
        str | None, typer.Option(metavar="TEACHER:STUDENT", help="Networks, instead of the recipe's.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A data set, instead of the recipe's.")] = None,
    seeds: Seeds = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each training, instead of the recipe's.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Gives data, teacher, student, batch and optimizer; CIFAR-100 by CRD's budget if not given."),
    ] = None,
    changes: Overrides = None,
    jobs: Jobs = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs and the table; under bench/ if not given.")
    ] = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train one student by several methods, with the same budget. The same line goes on where it was interrupted."""
    output(quiet, as_json, allow_code)
    require("torch", "train", "kdedge bench")
    from kdedge.bench.methods import Asked, compare

    compare(Asked(listed(methods), seeds, recipe, pair, data, epochs, tuple(changes or ()), jobs, out))


@bench.command()
def ablation(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="A recipe, or the folder of a run, which keeps the result.")
    ],
    mode: Annotated[
        Literal["add", "drop", "both"],
        typer.Option(help="Add each term to those before it, leave each out of the whole, or both."),
    ] = "both",
    by: Annotated[Literal["term", "method"], typer.Option(help="What is added or left out at a time.")] = "term",
    seeds: Seeds = 3,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each training, shared out to the phases, instead of the recipe's.")
    ] = None,
    changes: Overrides = None,
    jobs: Jobs = 1,
    beside: Annotated[
        str, typer.Option(metavar="M,M,...", help="Methods to hold them against: METHOD, METHOD:PRESET or recipe:NAME.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs and the table; under bench/ or the run if not given.")
    ] = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe's student with some terms of its loss only. The same line goes on where it was interrupted."""
    output(quiet, as_json, allow_code)
    require("torch", "train", "kdedge bench")
    from kdedge.bench.ablation import Asked, ablate

    ablate(Asked(recipe, mode, by, seeds, epochs, tuple(changes or ()), jobs, out, listed(beside)))


def listed(text: str) -> tuple[str, ...]:
    return tuple(item for item in text.replace(" ", "").split(",") if item)
