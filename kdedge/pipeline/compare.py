"""the records of several runs -> one table, and which run dominates which; compare.md, compare.json, compare.svg"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from kdedge.core import console
from kdedge.core.deployment import Precision
from kdedge.core.errors import KdedgeError
from kdedge.core.profiling import ProfileReport
from kdedge.core.quality import Quality
from kdedge.core.report import ExportReport
from kdedge.core.rundir import digest, write_json, write_text
from kdedge.core.stats import share_interval
from kdedge.gate.baseline import machine_of
from kdedge.gate.metrics import collect
from kdedge.pipeline.gate import read_records
from kdedge.pipeline.project import Project, reopen
from kdedge.pipeline.sides import pictures
from kdedge.report.card import model_name
from kdedge.report.compare import columns, markdown, plain, rows, sentences
from kdedge.report.fronts import Entry, fronts


def compare(runs: Sequence[Path], device: str | None, as_markdown: bool, out: Path | None = None) -> None:
    """Show runs side by side.

    Args:
        device: a board's folder in each run; its numbers instead of this machine's.
        out: a folder for the table, the numbers and a figure of the fronts.

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
        console.show_table("compare", columns(entries), rows(entries))
        for sentence in sentences(entries, list(fronts(entries))):
            console.show_text(sentence)
    if out:
        write(entries, out)
    console.emit(plain(entries))


def write(entries: Sequence[Entry], folder: Path) -> None:
    """The figure is left out where no two runs can be compared."""
    found = list(fronts(entries))
    text = markdown(entries)
    if found:
        from kdedge.report.pareto import fronts_file

        write_text(folder / "compare.svg", fronts_file(entries, found))
        text += "\n![Accuracy against cost; the dashed line is the Pareto front](compare.svg)\n"
    else:
        (folder / "compare.svg").unlink(missing_ok=True)
        console.warn("no figure: no two of the runs can be compared in anything")
    write_text(folder / "compare.md", text)
    write_json(folder / "compare.json", plain(entries))
    console.say(f"{folder / 'compare.md'}, compare.json" + (" and compare.svg beside it" if found else " beside it"))


def entry_of(name: str, project: Project) -> Entry:
    training, export, profiles = read_records(project)
    precisions = tuple(name for name in get_args(Precision) if name in export.onnx)
    return Entry(
        name=name,
        student=model_name(export.deployed(training.student)),
        metrics=collect(training, export, profiles),
        precisions=precisions,
        machine=machine_of(profiles),
        test_set=test_set(project, export),
        intervals=intervals(export, profiles),
        measure=training.measure,
    )


def test_set(project: Project, export: ExportReport) -> dict[str, Any]:
    """What tells whether two runs answered the same images."""
    hop = next(iter(export.hops), None)
    labels = hop.correctness.of if hop and hop.correctness else None
    if project.recipe.task == "detect" and (shown := pictures(project)):
        labels = digest(shown)
    return {
        "data": project.recipe.data.name,
        "images": hop.quality.images if hop else None,
        "labels": labels[:8] if labels else None,
    }


def intervals(export: ExportReport, profiles: Sequence[ProfileReport]) -> dict[str, tuple[float, float]]:
    """Of top-1, which is a share of the images, and of latency."""
    qualities = {name: export.quality(name) for name in export.onnx}
    found = {
        f"{name}/top1": share_interval(each.top1, each.images)
        for name, each in qualities.items()
        if isinstance(each, Quality)
    }
    medians = {f"{each.name}/latency_median_ms": each.latency.median_interval for each in profiles}
    return found | {name: interval for name, interval in medians.items() if interval}
