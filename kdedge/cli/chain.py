"""The commands that make something: a run, or a link of it."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.app import Advisory, AllowCode, AsJson, Overrides, Quiet, RecipeName, RunFolder, app, output
from kdedge.core.errors import KdedgeError, require


@app.command()
def run(
    recipe: RecipeName,
    changes: Overrides = None,
    advisory: Advisory = False,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Everything, from a recipe to the report. What is done already is skipped."""
    output(quiet, as_json, allow_code)
    from kdedge.pipeline.whole import run_recipe

    raise typer.Exit(run_recipe(recipe, changes or [], advisory))


@app.command()
def distill(
    recipe: RecipeName,
    changes: Overrides = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train teacher, student, and the student on labels alone."""
    output(quiet, as_json, allow_code)
    from kdedge.core.load import load_recipe
    from kdedge.pipeline.chain import perform_one
    from kdedge.pipeline.project import open_project

    perform_one(open_project(load_recipe(recipe, changes or [])), "distill")


@app.command()
def export(
    run: RunFolder = None,
    trt: Annotated[
        bool, typer.Option("--trt", help="TensorRT engines: preset tensorrt, unless the recipe is for TensorRT.")
    ] = False,
    ort: Annotated[
        bool, typer.Option("--ort", help="ONNX Runtime engines: preset onnxruntime_cpu, unless the recipe is for it.")
    ] = False,
    preset: Annotated[
        str | None, typer.Option(help="A preset (kdedge ls) instead of the recipe's export section.")
    ] = None,
    exit_: Annotated[
        str | None,
        typer.Option(
            "--exit", metavar="K/N|all", help="Only what leads to early exit K of N; all: every exit, and a cascade."
        ),
    ] = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """ONNX in every precision, compared hop by hop, and the engines."""
    output(quiet, as_json, allow_code)
    chosen = [f"--{name}" for name, given in (("trt", trt), ("ort", ort), ("preset", preset)) if given]
    if len(chosen) > 1:
        raise KdedgeError(" and ".join(chosen), "each chooses the export section", f"kdedge export {chosen[0]}")
    from kdedge.pipeline.chain import perform_one
    from kdedge.pipeline.project import reopen

    project = reopen(run).with_preset(preset)
    perform_one(project.with_backend("trt" if trt else "ort" if ort else None).with_exit(exit_), "export")


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
    batches: Annotated[
        str | None, typer.Option(metavar="1,2,4", help="Sweep: latency and throughput at each of these batches.")
    ] = None,
    streams: Annotated[
        str | None,
        typer.Option(metavar="1,2,4", help="Sweep: with so many sessions at once, each on a thread of its own."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="ort|trt|...", help="For a model of no run: the library to run it with.")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="The time of each layer, by the ONNX nodes it came from.")
    ] = False,
    energy: Annotated[bool, typer.Option("--energy", help="Energy of an inference as well; minutes a model.")] = False,
    lock_clocks: Annotated[
        bool, typer.Option("--lock-clocks", help="Pin clocks while measuring, as root; put back afterwards.")
    ] = False,
    power_mode: Annotated[
        str | None, typer.Option(metavar="NAME", help="A Jetson's power mode to measure in; put back afterwards.")
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="local|ssh://[USER@]HOST[:PORT]", help="Where to build engines and measure.")
    ] = "local",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a device that another run measures on.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Latency and memory in fresh processes, here or on a board. It takes a run's engines, or any ONNX model."""
    output(quiet, as_json)
    from kdedge.profile.targets import LocalTarget, parse_target

    place = parse_target(target, wait=wait)
    given = {"batch": batch, "threads": threads, "processes": processes, "seconds": seconds, "power_mode": power_mode}
    given |= {"energy": energy or None, "lock_clocks": lock_clocks or None}
    changes = {key: value for key, value in given.items() if value is not None}
    alone = what if what is not None and not what.is_dir() and (what.is_file() or what.suffix) else None
    if backend and not alone:
        raise KdedgeError("--backend", "a run has the one that it was exported for", "kdedge export --preset NAME")
    if layers or batches is not None or streams is not None:
        from kdedge.pipeline.closer import asked, look_at_file, look_at_run

        look = asked(layers=layers, batches=batches, streams=streams, energy=energy, batch=batch)
        if alone:
            look_at_file(alone, look, changes, shape or [], place, backend)
            return
        from kdedge.pipeline.project import reopen

        look_at_run(reopen(what).with_profile(changes), look, place)
        return
    if alone:
        from kdedge.pipeline.profile import profile_file

        profile_file(alone, changes, shape or [], place, backend)
        return
    from kdedge.pipeline.project import reopen

    project = reopen(what).with_profile(changes)
    if isinstance(place, LocalTarget):
        from kdedge.pipeline.chain import perform_one

        perform_one(project, "profile", again=True)
    else:
        from kdedge.pipeline.device import run_on

        run_on(project, place)


@app.command()
def report(run: RunFolder = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """One self-contained HTML page about a run. Beside its ONNX files, the model card."""
    output(quiet, as_json)
    from kdedge.pipeline.chain import perform_one
    from kdedge.pipeline.project import PAGE, reopen

    project = reopen(run)
    perform_one(project, "report", again=True)
    from kdedge.core.console import show_text

    show_text(str(project.run / PAGE))


@app.command()
def exits(
    run: RunFolder = None,
    accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="92.5%|0.925",
            help="Validation top-1 to choose the threshold for; the deepest exit's less half a point if not given.",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the engines: fp32, fp16, int8.")] = "fp32",
    threshold: Annotated[
        float | None, typer.Option(metavar="T", help="Take this threshold, 0 to 1, instead of choosing one.")
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="local|ssh://[USER@]HOST[:PORT]", help="Where the exits run and are measured.")
    ] = "local",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a device that another run measures on.")] = 0,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Early exits: choose a threshold. Accuracy against mean cost, and what the chosen point gives."""
    output(quiet, as_json, allow_code)
    from kdedge.pipeline.exits import Asked, find_threshold
    from kdedge.pipeline.project import reopen
    from kdedge.profile.targets import parse_target

    find_threshold(reopen(run), Asked(accuracy, threshold, precision), parse_target(target, wait=wait))


@app.command()
def check(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (kdedge ls).")
    ] = "",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")] = False,
    changes: Overrides = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Try a recipe without training. Data, teacher's accuracy, shapes, cost, memory, time per epoch."""
    output(quiet, as_json, allow_code)
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
