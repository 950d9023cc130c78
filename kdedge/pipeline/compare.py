"""the records of several runs -> one table, and which run dominates which"""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from kdedge.core import console
from kdedge.core.deployment import Precision
from kdedge.core.errors import KdedgeError
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import Metric
from kdedge.gate.baseline import fingerprint_of
from kdedge.gate.rules import collect, cost
from kdedge.pipeline.gate import read_records
from kdedge.pipeline.project import Project, reopen
from kdedge.report.card import model_name
from kdedge.report.compare import COLUMNS, Entry, fronts, markdown, plain, rows, sentences


def compare(runs: Sequence[Path], device: str | None, as_markdown: bool) -> None:
    """Show runs side by side.

    Args:
        device: a board's folder in each run; its numbers instead of this machine's.

    Raises:
        KdedgeError: fewer than two runs, one of them twice, or one that was not profiled.
    """
    if len(runs) < 2 or len({path.resolve() for path in runs}) < len(runs):
        what = "one run" if len(runs) == 1 else "a run twice" if runs else "no run"
        raise KdedgeError(f"{what} cannot be compared", "name two or more", "kdedge compare runs/A runs/B")
    names = [path.name for path in runs]
    distinct = len(set(names)) == len(names)
    entries = [entry_of(path.name if distinct else str(path), reopen(path).on_device(device)) for path in runs]
    if as_markdown:
        console.show_text(markdown(entries).rstrip())
    else:
        console.show_table("compare", COLUMNS, rows(entries))
        for sentence in sentences(entries, list(fronts(entries))):
            console.show_text(sentence)
    console.emit(plain(entries))


def entry_of(name: str, project: Project) -> Entry:
    training, export, profiles = read_records(project)
    metrics = collect(training, export, profiles) | energies(profiles)
    return Entry(
        name=name,
        student=model_name(export.deployed(training.student)),
        metrics=metrics,
        precisions=tuple(name for name in get_args(Precision) if name in export.onnx),
        machine=fingerprint_of(profiles).get("match", {}),
    )


def energies(profiles: Sequence[ProfileReport]) -> dict[str, Metric]:
    """Above idle power, of each model where it was measured."""
    measured = [(profile.name, profile.energy) for profile in profiles if profile.energy]
    return {f"{name}/energy_net_mj": cost(energy.net_mj.mean, "mJ") for name, energy in measured}
