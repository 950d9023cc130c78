"""The report: one HTML file that stands alone, without JavaScript and without anything loaded from elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdedge.core.exits import ExitsReport
from kdedge.core.paired import AgainstReport
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import ExportReport, GateResult, TrainingReport
from kdedge.report import ablation, answers, boxes, devices, exits, latency, layers, paired, parity, pictures, view
from kdedge.report.ablation import Ablation
from kdedge.report.answers import Asked, Mistake
from kdedge.report.boxes import Judged
from kdedge.report.devices import Measured
from kdedge.report.layers import LayersView
from kdedge.report.thumbnails import Thumbnail, thumbnail

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
    command_notes: Sequence[str] = ()
    """What that line does not say."""
    folder: str = "RUN"
    """Of the run, for the lines that the page tells to type."""
    exits: ExitsReport | None = None
    """Early exits, where the run was exported with them."""
    asked: Asked | None = None
    layers: Sequence[LayersView] = ()
    against: AgainstReport | None = None
    devices: Sequence[Measured] = ()
    """Others than the machine that the report is made on."""
    earlier: Sequence[str] = ()
    """Devices that have only seen an earlier export."""
    ablation: Ablation | None = None


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
        ablation=ablation,
        answers=answers,
        boxes=boxes,
        devices=devices,
        exits=exits,
        latency=latency,
        layers=layers,
        paired=paired,
        parity=parity,
        banner=view.banner(data.gate),
        tiles=list(view.tiles(data.training, data.export, data.profiles)),
        warnings=view.warnings(data.training, data.export, data.profiles, data.gate),
        notes=view.notes(data.export, data.profiles),
        training_charts=list(training_charts(data)),
        tradeoff_charts=list(tradeoff_charts(data)),
        ablation_charts=list(ablation_charts(data.ablation)) if data.ablation else [],
        exit_charts=list(exit_charts(data.exits)) if data.exits else [],
        paired_charts=list(paired_charts(data.against)) if data.against else [],
        profiles=[(profile, list(profile_charts(profile))) for profile in data.profiles],
        layer_views=[(each, list(layer_charts(each))) for each in data.layers],
        machines=[*devices.here(data.export, data.profiles), *data.devices],
        **(detections if data.training.task == "detect" else galleries)(data.asked),
    )


def galleries(asked: Asked | None) -> dict[str, list[tuple[Mistake, Thumbnail]]]:
    """The worst images, and those that only the lowest precision gets wrong, each with its picture."""
    if asked is None:
        return {}
    chosen = {"worst": answers.worst(asked, answers.lowest(asked)), "lower_only": answers.lower_only(asked)}
    return {
        name: [(each, thumbnail(asked.images[each.place], asked.normalize)) for each in mistakes]
        for name, mistakes in chosen.items()
    }


def detections(asked: Asked | None) -> dict[str, Any]:
    """The same of a detector, and how precise it is."""
    if asked is None:
        return {}
    deployed = [boxes.judge(asked, who, outputs) for who, outputs in asked.deployed.items()]
    others = [boxes.judge(asked, who, outputs) for who, outputs in asked.others.items()]
    highest, lowest = deployed[0], deployed[-1]
    return {
        "judged": deployed,
        "box_charts": list(box_charts(deployed, others, asked.names)),
        "worst": pictures.worst(asked, lowest, others),
        "lost": pictures.lost(asked, lowest, highest) if lowest is not highest else [],
    }


def training_charts(data: ReportData) -> Iterator[Chart]:
    from kdedge.report import charts_training

    curves = {network: rows for network, rows in data.curves.items() if rows}
    if not curves:
        return
    dotted = "Solid: validation. Dotted: training images, augmented, as they passed by. Marks: exits on the test split."
    yield Chart(
        "Accuracy by epoch",
        charts_training.accuracies(curves, data.training),
        dotted if data.training.task == "classify" else "On the validation images.",
    )
    for network, rows in curves.items():
        title = f"Loss of the {ROLES.get(network, f'student by {network}')}"
        yield Chart(title, charts_training.losses(network, rows), "Total, and each term before its weight.")


def tradeoff_charts(data: ReportData) -> Iterator[Chart]:
    from kdedge.report import charts

    measure = data.training.measure
    sizes = [charts.Point(role, net.weight_bytes, net.accuracy) for role, net in view.networks(data.training)]
    times = []
    files = "All networks"
    if data.export:
        files = "The student's ONNX files by precision; the others"
        sizes = [point for point in sizes if point.label != "student"]
        for precision, file in data.export.onnx.items():
            quality = data.export.quality(precision)
            sizes += [charts.Point(precision, file.bytes, quality.accuracy)] if quality else []
        for profile in data.profiles:
            quality = data.export.quality(profile.name)
            latency = profile.latency
            times += (
                [charts.Point(profile.name, latency.median, quality.accuracy, latency.median_interval)]
                if quality
                else []
            )
    yield Chart(
        "Accuracy against size",
        charts.scatter("sizes", sizes, "size", measure, "model size", as_bytes=True),
        f"{files}: fp32 weights. Better is up and left.",
    )
    if times:
        yield Chart(
            "Accuracy against latency",
            charts.scatter("times", times, "median latency, ms", measure, "median latency"),
            "Bars: 95 % interval of the median over processes. Better is up and left.",
        )
    if data.profiles:
        yield Chart(
            "Latency",
            charts.ecdf(data.profiles),
            "Share of all queries answered within a time, end to end, one query in flight.",
        )


def box_charts(deployed: Sequence[Judged], others: Sequence[Judged], names: Sequence[str]) -> Iterator[Chart]:
    from kdedge.report import charts_boxes

    lowest = deployed[-1]
    yield Chart(
        "Precision by recall of each class",
        charts_boxes.by_class(lowest, names),
        charts_boxes.note(lowest),
    )
    yield Chart(
        "Precision by recall of each network",
        charts_boxes.by_network([*deployed, *others]),
        "Mean of the classes; behind each name the AP50.",
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
        "In the order measured",
        charts.timeline(profile),
        "Band: range of neighbouring queries. Line: their median. Dotted: a new process.",
    )
    if profile.energy and profile.energy.net_mj.values:
        yield Chart("Energy in the order measured", charts.energy(profile.name, profile.energy), "Of one inference.")


def layer_charts(each: LayersView) -> Iterator[Chart]:
    from kdedge.report import charts_layers

    if each.times:
        yield Chart("Slowest layers", charts_layers.times(each.times))
    yield Chart("Memory by layer", charts_layers.memory(each.name, each.footprint))


def paired_charts(report: AgainstReport) -> Iterator[Chart]:
    from kdedge.report import charts_paired

    if report.times:
        note = (
            "Right of 1 is slower than the base. A regression: the interval is clear of 1 and the ratio is not allowed."
        )
        yield Chart("Time against the base", charts_paired.ratios(report.times), note)


def ablation_charts(made: Ablation) -> Iterator[Chart]:
    yield Chart(ablation.TITLE, ablation.figure(made), ablation.NOTE)
