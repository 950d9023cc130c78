"""The commands that show what there is."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.app import AllowCode, AsJson, Classes, Quiet, Side, app, output
from kdedge.core.errors import KdedgeError, require


@app.command()
def ls(quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Shipped recipes and export presets."""
    output(quiet, as_json)
    from kdedge.pipeline.listing import show_shipped

    show_shipped()


@app.command()
def cp(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As kdedge ls lists it.")],
    into: Annotated[Path, typer.Argument(metavar="INTO", help="A folder or a file to be written.")] = Path(),
    quiet: Quiet = False,
) -> None:
    """Copy a shipped recipe or preset, to change it."""
    output(quiet, False)
    from kdedge.pipeline.listing import copy_shipped

    copy_shipped(name, into)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="METHOD", help="One of them; all if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Distillation methods, or one with its options and its source."""
    output(False, as_json)
    require("torch", "train", "kdedge methods")
    from kdedge.pipeline.listing import show_methods

    show_methods(name)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(metavar="MODEL", help="The network to lighten.")] = None,
    lighten: Annotated[
        str | None, typer.Option(metavar="CONV", help="Show a network made of grouped, depthwise or auto convolutions.")
    ] = None,
    groups: Annotated[int | None, typer.Option(min=2, help="Groups of grouped convolutions; 4 if not given.")] = None,
    classes: Classes = 100,
    size: Side = 32,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Networks by name, with parameters and MACs. Or one, layer by layer, before and after lightening."""
    output(False, as_json, allow_code)
    require("torch", "train", "kdedge models")
    from kdedge.pipeline.listing import show_lightened, show_models

    if name is None and lighten is None:
        show_models(classes, size)
    elif name is None:
        raise KdedgeError("--lighten without a network", "", f"kdedge models --lighten {lighten} vgg11")
    elif lighten is None:
        raise KdedgeError(f"kdedge models {name}", "a network is named to be lightened", f"kdedge layers {name}")
    else:
        show_lightened(name, lighten, groups, classes, size)


@app.command()
def layers(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name (kdedge models), or file.py:function with --allow-code.")
    ],
    classes: Classes = 100,
    size: Side = 32,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """A network's modules, their cost, and where it may be tapped."""
    output(False, as_json, allow_code)
    require("torch", "train", "kdedge layers")
    from kdedge.pipeline.listing import show_layers

    show_layers(model, classes, size)


@app.command()
def doctor(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The machine to look at: local, or ssh://[user@]host[:port].")
    ] = "local",
    as_json: AsJson = False,
) -> None:
    """What this machine or a board has and lacks. It gives the line that brings each; exit code 5: nothing works."""
    output(False, as_json)
    from kdedge.pipeline.doctor import run as examine

    examine(target)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more folders under runs/.")],
    device: Annotated[
        str | None,
        typer.Option(metavar="BOARD", help="The numbers of a board, by its folder under the runs' devices/."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write compare.md, compare.json and compare.svg there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Runs side by side. Pareto fronts of accuracy against latency, size, memory, energy, and what dominates what."""
    output(False, as_json)
    from kdedge.pipeline.compare import compare as side_by_side

    side_by_side(runs, device, markdown, out)


@app.command()
def detect(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of pictures.")],
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A folder under runs/, whose engine looks; the newest one if not given."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the run's engines: fp32, fp16, int8; fp32 if not given.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Instead of a run: a detector's ONNX file, or an engine of it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the pictures with their boxes, and detections.json.")
    ] = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="Tell boxes whose score is above this.")] = 0.3,
    size: Annotated[
        int | None,
        typer.Option(min=32, help="Look at pictures this large, where export.dynamic_size made a file of any size."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Boxes on pictures, from a run's detector, an ONNX file or an engine. Drawn if asked."""
    output(quiet, as_json)
    from kdedge.pipeline.deployed import chosen
    from kdedge.pipeline.detect import detect as find_boxes

    find_boxes(images, chosen(model, run, precision), out, score, size)


@app.command()
def clean(yes: Annotated[bool, typer.Option("--yes", help="Remove them.")] = False, as_json: AsJson = False) -> None:
    """What runs, cached teachers and kept runs take on disk. Removed if asked."""
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
