"""The command that decides whether a run may go on."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.app import Advisory, AsJson, Quiet, RunFolder, app, output
from kdedge.core.errors import KdedgeError


@app.command()
def gate(
    run: RunFolder = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Numbers to hold the run against, instead of the recipe's.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Write the run's numbers to the baseline.")] = False,
    reason: Annotated[str, typer.Option(help="Why the baseline changes; goes into it.")] = "",
    device: Annotated[
        str | None,
        typer.Option(metavar="BOARD", help="The numbers of a board, by its folder under the run's devices/."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|MODEL.onnx|REVISION",
            help="Measure the run beside this one now, in turns, until it is clear; a minute.",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the run under the commit here, for --against REVISION later.")
    ] = False,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=1x3x224x224", help="An input's shape, where --against MODEL.onnx leaves it open. Repeatable."
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="For the measurements of --against together; 60 if not given.")
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="local|ssh://[USER@]HOST[:PORT]", help="Where --against measures.")
    ] = "local",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a device that another run measures on.")] = 0,
    advisory: Advisory = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Hold a run against its budgets. Exit code 0 kept, 1 broken, 3 nothing to compare with, 4 unstable."""
    output(quiet, as_json)
    from kdedge.pipeline.project import reopen

    one_of({"--against": against, "--keep": keep, "--update": update})
    if against is not None:
        one_of({"--against": against, "--baseline": baseline, "--device": device})
        from kdedge.pipeline.against import gate_against
        from kdedge.profile.measure import parse_shapes
        from kdedge.profile.targets import parse_target

        place, shapes = parse_target(target, wait=wait), parse_shapes(shape or [])
        project = reopen(run)
        raise typer.Exit(gate_against(project, against, place, shapes=shapes, seconds=seconds, advisory=advisory))
    only_against({"--target": target != "local", "--shape": shape, "--seconds": seconds})
    if keep:
        from kdedge.pipeline.kept import keep as keep_run

        keep_run(reopen(run))
        return
    from kdedge.pipeline.whole import decide_gate

    raise typer.Exit(decide_gate(reopen(run).with_baseline(baseline).on_device(device), update, reason, advisory))


def one_of(options: dict[str, object]) -> None:
    """Raises KdedgeError where more than one is given."""
    if len(given := [name for name, value in options.items() if value]) > 1:
        raise KdedgeError(" and ".join(given), "one of them at a time", "kdedge gate --help")


def only_against(options: dict[str, object]) -> None:
    """Raises KdedgeError where one is given."""
    for name, value in options.items():
        if value:
            fix = f"kdedge gate RUN --against OTHER {name} ..., or kdedge gate --device BOARD for a board's numbers"
            raise KdedgeError(name, "only --against measures; the gate of budgets reads", fix)
