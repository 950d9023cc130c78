"""The report: one HTML file that stands alone, without JavaScript and without anything loaded from elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdedge.core.exits import ExitsReport
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import ExportReport, GateResult, TrainingReport
from kdedge.report import exits, view

if TYPE_CHECKING:
    from markupsafe import Markup


ROLES = {"teacher": "teacher", "student": "student", "baseline": "student on labels alone"}


@dataclass(frozen=True)
class ReportData:
    """What a run has to tell; parts that it has not come to yet are None or empty, and the page says so."""

    title: str
    recipe: dict[str, Any]
    """As resolved: with every default."""
    training: TrainingReport
    curves: dict[str, list[dict[str, float]]]
    """By network (student, teacher, baseline): the rows of its training log."""
    export: ExportReport | None
    profiles: list[ProfileReport]
    gate: GateResult | None
    summary: tuple[Sequence[str], Sequence[Sequence[str]]]
    """Columns and rows of the run's table, as the terminal shows it."""
    command: str
    """The line that makes this run again."""
    created: str
    exits: ExitsReport | None = None
    """Early exits, where the run was exported with them."""


@dataclass(frozen=True)
class Chart:
    title: str
    svg: "Markup"
    note: str = ""


def render(data: ReportData) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("kdedge.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return page.get_template("page.html.j2").render(
        data=data,
        view=view,
        exits=exits,
        banner=view.banner(data.gate),
        tiles=list(view.tiles(data.training, data.export, data.profiles)),
        warnings=view.warnings(data.training, data.export, data.profiles, data.gate),
        notes=view.notes(data.export, data.profiles),
        training_charts=list(training_charts(data)),
        tradeoff_charts=list(tradeoff_charts(data)),
        exit_charts=list(exit_charts(data.exits)) if data.exits else [],
        profiles=[(profile, list(profile_charts(profile))) for profile in data.profiles],
    )


def training_charts(data: ReportData) -> Iterator[Chart]:
    from kdedge.report import charts

    curves = {network: rows for network, rows in data.curves.items() if rows}
    if not curves:
        return
    yield Chart(
        "Accuracy by epoch",
        charts.accuracies(curves, data.training),
        "Solid: validation. Dotted: training images, augmented, as they passed by. Marks: exits on the test split.",
    )
    for network, rows in curves.items():
        title = f"Loss of the {ROLES.get(network, f'student by {network}')}"
        yield Chart(title, charts.losses(network, rows), "Total, and each term before its weight.")


def tradeoff_charts(data: ReportData) -> Iterator[Chart]:
    from kdedge.report import charts

    sizes = [charts.Point(role, net.weight_bytes, net.top1) for role, net in view.networks(data.training)]
    times = []
    files = "All networks"
    if data.export:
        files = "The student's ONNX files by precision; the others"
        sizes = [point for point in sizes if point.label != "student"]
        for precision, file in data.export.onnx.items():
            quality = data.export.quality(precision)
            sizes += [charts.Point(precision, file.bytes, quality.top1)] if quality else []
        for profile in data.profiles:
            quality = data.export.quality(profile.name)
            latency = profile.latency
            times += (
                [charts.Point(profile.name, latency.median, quality.top1, latency.median_interval)] if quality else []
            )
    yield Chart(
        "Accuracy against size",
        charts.scatter("sizes", sizes, "size", "Top-1 accuracy against model size", as_bytes=True),
        f"{files}: fp32 weights. Better is up and left.",
    )
    if times:
        yield Chart(
            "Accuracy against latency",
            charts.scatter("times", times, "median latency, ms", "Top-1 accuracy against median latency"),
            "Bars: 95 % interval of the median over processes. Better is up and left.",
        )
    if data.profiles:
        yield Chart(
            "Latency",
            charts.ecdf(data.profiles),
            "Share of all queries answered within a time, end to end, one query in flight.",
        )


def exit_charts(report: ExitsReport) -> Iterator[Chart]:
    from kdedge.report import charts

    note = "Line: validation images, for every threshold."
    yield Chart("Accuracy against mean MACs", charts.exits(report, "macs"), note)
    yield Chart(
        "Accuracy against mean latency",
        charts.exits(report, "latency_ms"),
        f"{note} Latency: medians of the stages that an image goes through.",
    )


def profile_charts(profile: ProfileReport) -> Iterator[Chart]:
    from kdedge.report import charts

    samples = charts.samples_of(profile)
    limit = charts.histogram_limit(samples)
    beyond = int((samples > limit).sum())
    note = f"{beyond} of {len(samples)} queries took longer than shown, up to {samples.max():.3f} ms." if beyond else ""
    yield Chart("Distribution", charts.histogram(profile), note)
    yield Chart(
        "In the order measured", charts.timeline(profile), "Band: range of neighbouring queries. Line: their median."
    )
