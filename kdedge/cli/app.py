"""The application, and the options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="From a trained vision model and a small board to a compact student that fits, with proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (kdedge ls).")
]
RunFolder = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="A folder under runs/; the newest one if not given.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: run.seed=1. May be repeated.")
]
Advisory = Annotated[bool, typer.Option("--advisory", help="End with 0 whatever the verdict; the files keep it.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Results only, no progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout; everything else on stderr.")]

AllowCode = Annotated[bool, typer.Option("--allow-code", help="Run the Python files that models are named by.")]


def output(quiet: bool, as_json: bool, allow_code: bool = False) -> None:
    from kdedge.core.console import OUT

    OUT.configure(quiet, as_json)
    if allow_code:
        from kdedge.models import code

        code.allow_code()


Classes = Annotated[int, typer.Option(min=2, help="Classes of the last layer.")]
Side = Annotated[int, typer.Option("--size", min=8, help="Side of the image in pixels.")]
