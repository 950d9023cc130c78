"""What each command prints at its end: one table."""

from collections.abc import Sequence

from kdedge.core import console
from kdedge.core.console import many, percent, show_table
from kdedge.core.exits import ExitsReport
from kdedge.core.quality import MEASURES, BoxQuality, Quality
from kdedge.core.report import ExitPoint, ExportReport, GateResult, Hop, TrainedModel, TrainingReport
from kdedge.gate.render import COLUMNS, headline, quiet_line, rows
from kdedge.report import exits

SIDES = {"picture": "the pictures' own pixels", "input": "pixels of the model's input"}


def show_training(report: TrainingReport) -> None:
    networks = {
        "teacher": report.teacher,
        **report.others(),
        "student, labels only": report.baseline,
        **{f"student, {name}": network for name, network in report.controls.items()},
        "student": report.student,
    }
    columns = ("network", "model", report.measure.label, "parameters", "MACs", "epochs", "seconds")
    table = []
    for label, network in networks.items():
        if network:
            table += [training_row(label, network), *exit_rows(network)]
    show_table(f"distill: {', '.join(dict.fromkeys(report.methods)) or 'labels only'}", columns, table)


def exit_rows(network: TrainedModel) -> list[list[str]]:
    top1s = {f"  exit {stage}": top1 for stage, top1 in network.exits.items()}
    if network.ensemble is not None:
        top1s["  all exits together"] = network.ensemble
    return [[label, "", percent(top1), "", "", "", ""] for label, top1 in top1s.items()]


def training_row(label: str, network: TrainedModel) -> list[str]:
    options = ", ".join(f"{key}={value}" for key, value in network.options.items())
    return [
        label,
        f"{network.model} ({options})" if options else network.model,
        percent(network.accuracy),
        many(network.params),
        many(network.macs),
        str(network.epochs or "-"),
        f"{network.seconds:.1f}" if network.seconds else "-",
    ]


def show_hops(title: str, hops: Sequence[Hop]) -> None:
    of_boxes = [(hop, hop.quality) for hop in hops if isinstance(hop.quality, BoxQuality)]
    if of_boxes:
        show_box_hops(title, of_boxes)
        return
    columns = ("hop", "against", "top-1", "top-5", "ECE", "agreement", "max error", "mean error")
    show_table(title, columns, [hop_row(hop, hop.quality) for hop in hops if isinstance(hop.quality, Quality)])


def show_box_hops(title: str, hops: Sequence[tuple[Hop, BoxQuality]]) -> None:
    """A range of sizes that no object is in has no column."""
    first = hops[0][1]
    sizes = [size for size in first.by_size if any(quality.by_size[size] is not None for _, quality in hops)]
    measure = MEASURES["detect"].label
    columns = ("hop", "against", measure, "AP50", "AP75", *sizes, "boxes kept", "least IoU", "score error")
    notes = [f"sizes in {SIDES[first.sizes_in]}"] if sizes else []
    if scores := sorted({hop.boxes.score for hop, _ in hops if hop.boxes}):
        least = " to ".join(f"{score:g}" for score in dict.fromkeys((scores[0], scores[-1])))
        notes.append(f"boxes kept: of those that either hop scores {least} or more, the share that the other has too")
    show_table(title, columns, [box_hop_row(hop, quality, sizes) for hop, quality in hops], "; ".join(notes))


def show_export(report: ExportReport) -> None:
    exit_ = f", exit {report.exit}" if report.exit else ""
    whole = [hop for hop in report.hops if "/" not in hop.name]  # of the early exits the table below has enough
    show_hops(f"export: opset {report.opset}, {report.backend}{exit_}", whole)
    for sentence in report.told():
        console.say(sentence)
    if report.exits:
        precisions = [name for name in report.onnx if report.quality(name)]
        columns = ("exit", "after", "parameters", "MACs", *(f"{name} top-1" for name in precisions))
        table = [exit_row(report, end, precisions) for end in report.exits]
        show_table("exits: all that runs up to each", columns, table)


def exit_row(report: ExportReport, end: ExitPoint, precisions: list[str]) -> list[str]:
    found = [report.quality(precision, end.output) for precision in precisions]
    top1s = [percent(quality.accuracy) if quality else "-" for quality in found]
    return [end.name, end.stage, many(end.params), many(end.macs), *top1s]


def hop_row(hop: Hop, quality: Quality) -> list[str]:
    return [
        hop.name,
        hop.reference or "-",
        percent(quality.accuracy),
        percent(quality.top5),
        f"{quality.ece:.4f}",
        percent(hop.agreement),
        "-" if hop.max_error is None else f"{hop.max_error:.1e}",
        "-" if hop.mean_error is None else f"{hop.mean_error:.1e}",
    ]


def box_hop_row(hop: Hop, quality: BoxQuality, sizes: Sequence[str]) -> list[str]:
    precisions = (quality.mean_ap, quality.ap50, quality.ap75, *(quality.by_size[size] for size in sizes))
    iou, error = (hop.boxes.least_iou, hop.boxes.score_error) if hop.boxes else (None, None)
    return [
        hop.name,
        hop.reference or "-",
        *map(percent, precisions),
        percent(hop.agreement),
        "-" if iou is None else f"{iou:.4f}",
        "-" if error is None else f"{error:.1e}",
    ]


def show_exits(report: ExitsReport) -> None:
    show_table(f"early exits: {report.precision}, batch 1, {report.threads} threads", exits.COLUMNS, exits.rows(report))
    for text in (exits.summary(report), *exits.remarks(report)):
        console.say(text)


def show_gate(result: GateResult) -> None:
    at_once, quiet = result.folded
    if at_once:
        show_table(headline(result), COLUMNS, rows(at_once))
    else:
        console.say(headline(result))
    if quiet:
        console.say(f"{quiet_line(quiet)}; the run's gate.md lists them")
    for warning in result.warnings:
        console.warn(warning)
