"""The commands about data."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.app import AsJson, Overrides, Quiet, app, output
from kdedge.core.errors import require

data = typer.Typer(no_args_is_help=True, help="A look at the data.")
app.add_typer(data, name="data")


@data.callback()
def group() -> None:  # without it, a group of one command would be that command
    """A look at the data."""


@data.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RECIPE|NAME", help="A recipe, or a data set by its name.")],
    split: Annotated[str, typer.Option(metavar="train|validation|test", help="Which images.")] = "train",
    images: Annotated[int, typer.Option(min=1, max=400, help="How many are drawn.")] = 16,
    augmented: Annotated[bool, typer.Option("--augmented", help="As data.augment changes them.")] = False,
    root: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the set lies, instead of data.root or KDEDGE_DATA.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="What is drawn; NAME_SPLIT.png here if not given.")
    ] = None,
    changes: Overrides = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Draw images with their boxes or labels. Count them by class and size, and tell what was left out."""
    output(quiet, as_json)
    require("torch", "train", "kdedge data show")
    from kdedge.pipeline.show_data import Request, show_data

    show_data(name, changes or [], Request(split, images, augmented, root, out))
