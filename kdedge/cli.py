"""The command line.  Every command imports what it needs when it runs, so that --help stays fast."""

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from kdedge.core.errors import KdedgeError, MissingTool, require

app = typer.Typer(
    help="From a trained vision model and a small board to a compact student that fits, with proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

RecipeName = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe (kdedge ls).")]
RunFolder = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="A folder under runs/; the newest one if not given.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: run.seed=1. May be repeated.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Results only, no progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout; everything else on stderr.")]


def output(quiet: bool, as_json: bool) -> None:
    from kdedge.core.console import OUT

    OUT.configure(quiet, as_json)


@app.command()
def run(recipe: RecipeName, changes: Overrides = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Everything, from the recipe to the report; what is done already is skipped."""
    output(quiet, as_json)
    from kdedge.pipeline.whole import run_recipe

    raise typer.Exit(run_recipe(recipe, changes or []))


@app.command()
def distill(recipe: RecipeName, changes: Overrides = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Train the teacher if it is needed, the student, and the student alone."""
    output(quiet, as_json)
    from kdedge.core.load import load_recipe
    from kdedge.pipeline.chain import perform_one
    from kdedge.pipeline.project import open_project

    perform_one(open_project(load_recipe(recipe, changes or [])), "distill")


@app.command()
def export(
    run: RunFolder = None,
    trt: Annotated[bool, typer.Option("--trt", help="Build a TensorRT engine.")] = False,
    ort: Annotated[bool, typer.Option("--ort", help="Build an ONNX Runtime engine (the default).")] = False,  # noqa: ARG001
    preset: Annotated[
        str | None, typer.Option(help="A preset (kdedge ls) instead of the recipe's export section.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """ONNX in every precision, compared hop by hop, and the engines."""
    output(quiet, as_json)
    if trt:
        raise MissingTool(
            "--trt: kdedge has no TensorRT backend yet", "it builds ONNX Runtime engines", "kdedge export --ort"
        )
    from kdedge.pipeline.chain import perform_one
    from kdedge.pipeline.project import reopen

    perform_one(reopen(run).with_preset(preset), "export")


@app.command()
def profile(
    what: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN|MODEL", help="A run's folder, an ONNX file or an engine; the newest run if not given."
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=1x3x224x224", help="An input's shape, where the model leaves it open. May be repeated."
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images at a time.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Fresh processes.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.01, help="Measured time in each process.")] = None,
    target: Annotated[str, typer.Option(help="Where to measure.")] = "local",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Latency and memory, each process fresh: of a run's engines, or of any ONNX model."""
    output(quiet, as_json)
    if target != "local":
        raise MissingTool(f"--target {target}: this version measures on this machine only", "", "kdedge profile")
    given = {"batch": batch, "threads": threads, "processes": processes, "seconds": seconds}
    changes = {key: value for key, value in given.items() if value is not None}
    if what is not None and not what.is_dir() and (what.is_file() or what.suffix):
        from kdedge.pipeline.profile import profile_file

        profile_file(what, changes, shape or [])
        return
    from kdedge.pipeline.chain import perform_one
    from kdedge.pipeline.project import reopen

    perform_one(reopen(what).with_profile(changes), "profile", again=True)


@app.command()
def gate(
    run: RunFolder = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Numbers to hold the run against, instead of the recipe's.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Write the run's numbers to the baseline.")] = False,
    reason: Annotated[str, typer.Option(help="Why the baseline changes; goes into it.")] = "",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Hold a run against its budgets: exit code 0 kept, 1 broken, 3 nothing to compare with, 4 unstable."""
    output(quiet, as_json)
    from kdedge.pipeline.project import reopen
    from kdedge.pipeline.whole import decide_gate

    raise typer.Exit(decide_gate(reopen(run).with_baseline(baseline), update, reason))


@app.command()
def report(run: RunFolder = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """One self-contained HTML page about a run."""
    output(quiet, as_json)
    from kdedge.pipeline.chain import perform_one
    from kdedge.pipeline.project import PAGE, reopen

    project = reopen(run)
    perform_one(project, "report", again=True)
    from kdedge.core.console import show_text

    show_text(str(project.run / PAGE))


@app.command()
def check(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")] = "",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")] = False,
    changes: Overrides = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Try a recipe without training: data, teacher's accuracy, shapes, cost, memory, time per epoch."""
    output(quiet, as_json)
    if schema:
        from kdedge.pipeline.listing import show_schema

        show_schema()
        return
    if not recipe:
        raise KdedgeError("no recipe is given", "", "kdedge check RECIPE, or kdedge check --schema")
    from kdedge.core.load import load_recipe
    from kdedge.pipeline.project import open_project

    project = open_project(load_recipe(recipe, changes or []))
    require("torch", "train", "kdedge check")
    from kdedge.pipeline.check import run as try_recipe

    try_recipe(project)


@app.command()
def ls(quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Shipped recipes and export presets."""
    output(quiet, as_json)
    from kdedge.pipeline.listing import show_shipped

    show_shipped()


@app.command()
def cp(name: str, into: Annotated[Path, typer.Argument()] = Path(), quiet: Quiet = False) -> None:
    """Copy a shipped recipe or preset, to change it."""
    output(quiet, False)
    from kdedge.pipeline.listing import copy_shipped

    copy_shipped(name, into)


@app.command()
def methods(name: Annotated[str | None, typer.Argument()] = None, as_json: AsJson = False) -> None:
    """Distillation methods, or one with its options and its source."""
    output(False, as_json)
    require("torch", "train", "kdedge methods")
    from kdedge.pipeline.listing import show_methods

    show_methods(name)


Classes = Annotated[int, typer.Option(min=2, help="Classes of the last layer.")]
Side = Annotated[int, typer.Option("--size", min=8, help="Side of the image in pixels.")]


@app.command()
def models(classes: Classes = 100, size: Side = 32, as_json: AsJson = False) -> None:
    """Networks by name, with parameters and MACs."""
    output(False, as_json)
    require("torch", "train", "kdedge models")
    from kdedge.pipeline.listing import show_models

    show_models(classes, size)


@app.command()
def layers(model: str, classes: Classes = 100, size: Side = 32, as_json: AsJson = False) -> None:
    """A network's modules, their outputs and cost, and where it may be tapped."""
    output(False, as_json)
    require("torch", "train", "kdedge layers")
    from kdedge.pipeline.listing import show_layers

    show_layers(model, classes, size)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What this machine has, what is missing, and how to get it."""
    output(False, as_json)
    from kdedge.pipeline.doctor import run as examine

    examine()


@app.command()
def clean(yes: Annotated[bool, typer.Option("--yes", help="Remove them.")] = False, as_json: AsJson = False) -> None:
    """Say what runs and cached teachers take on disk, and remove them if asked."""
    output(False, as_json)
    from kdedge.pipeline.clean import run as sweep

    sweep(yes)


@app.command()
def version(as_json: AsJson = False) -> None:
    """The version of kdedge."""
    output(False, as_json)
    from importlib.metadata import version as installed

    from kdedge.core.console import emit, show_text

    show_text(installed("kdedge"))
    emit({"kdedge": installed("kdedge")})


def interrupted(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    sys.stderr.write("\ninterrupted; what is finished is kept, and the same command goes on from there\n")
    raise SystemExit(130)


def main() -> None:
    """Entry point: a user's mistake ends in one message and an exit code, a bug in its traceback."""
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    try:
        app()
    except KdedgeError as error:
        from kdedge.core.console import fail

        fail(str(error))
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
