"""What each command prints at its end: one table."""

from kdedge.core import console
from kdedge.core.console import many, percent, show_table, size
from kdedge.core.report import ExportReport, GateResult, Hop, ProfileReport, TrainedModel, TrainingReport
from kdedge.gate.render import COLUMNS, headline, rows


def show_training(report: TrainingReport) -> None:
    networks = {"teacher": report.teacher, "student, labels only": report.baseline, "student": report.student}
    columns = ("network", "model", "top-1", "parameters", "MACs", "epochs", "seconds")
    table = [training_row(label, network) for label, network in networks.items() if network]
    table += [[f"  exit {stage}", "", percent(top1), "", "", "", ""] for stage, top1 in report.student.exits.items()]
    show_table(f"distill: {', '.join(report.methods) or 'labels only'}", columns, table)


def training_row(label: str, network: TrainedModel) -> list[str]:
    options = ", ".join(f"{key}={value}" for key, value in network.options.items())
    return [
        label,
        f"{network.model} ({options})" if options else network.model,
        percent(network.top1),
        many(network.params),
        many(network.macs),
        str(network.epochs or "-"),
        f"{network.seconds:.1f}" if network.seconds else "-",
    ]


def show_export(report: ExportReport) -> None:
    columns = ("hop", "against", "top-1", "top-5", "ECE", "agreement", "max error", "mean error")
    show_table(f"export: opset {report.opset}, {report.backend}", columns, [hop_row(hop) for hop in report.hops])


def hop_row(hop: Hop) -> list[str]:
    return [
        hop.name,
        hop.reference or "-",
        percent(hop.quality.top1),
        percent(hop.quality.top5),
        f"{hop.quality.ece:.4f}",
        percent(hop.agreement),
        "-" if hop.max_error is None else f"{hop.max_error:.1e}",
        "-" if hop.mean_error is None else f"{hop.mean_error:.1e}",
    ]


def show_profiles(reports: list[ProfileReport]) -> None:
    columns = (
        "model",
        "bytes",
        "median ms",
        "95 % interval",
        "p95 ms",
        "p99 ms",
        "images/s",
        "first ms",
        "peak memory",
    )
    batch = reports[0]
    title = f"profile: batch {batch.batch}, {batch.threads} threads, {batch.latency.processes} processes, end to end"
    show_table(title, columns, [profile_row(report) for report in reports])
    for note in dict.fromkeys(f"{report.name}: {note}" for report in reports for note in report.notes):
        console.say(note)


def profile_row(report: ProfileReport) -> list[str]:
    latency = report.latency
    tail = {name: "-" if value is None else f"{value:.3f}" for name, value in latency.percentiles.items()}
    interval = latency.median_interval
    return [
        report.name,
        size(report.model_bytes),
        f"{latency.median:.3f}",
        f"{interval[0]:.3f} .. {interval[1]:.3f}" if interval else "-",
        tail["p95"],
        tail["p99"],
        f"{report.throughput:.0f}",
        f"{report.first_ms:.2f}",
        size(report.peak_memory_bytes),
    ]


def show_gate(result: GateResult) -> None:
    show_table(headline(result), COLUMNS, rows(result))
    for warning in result.warnings:
        console.warn(warning)
