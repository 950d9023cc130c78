"""The commands that compare."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.app import AllowCode, AsJson, Overrides, Quiet, app, output
from kdedge.core.errors import require

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
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each training, instead of the recipe's.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Gives data, teacher, student, batch and optimizer; CIFAR-100 by CRD's budget if not given."),
    ] = None,
    changes: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = 1,
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

    items = tuple(item for item in methods.replace(" ", "").split(",") if item)
    compare(Asked(items, seeds, recipe, pair, data, epochs, tuple(changes or ()), jobs, out))
