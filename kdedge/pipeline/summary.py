"""The table at the end of a run: teacher, student and every precision of it, in one line each."""

from kdedge.core.console import many, percent, size
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import ExportReport, TrainedModel, TrainingReport


def columns(training: TrainingReport) -> tuple[str, ...]:
    """What `summary_rows` stand under."""
    accuracy = training.measure.label
    return ("model", accuracy, "parameters", "MACs", "bytes", "median ms", "p95 ms", "peak memory")


def summary_rows(training: TrainingReport, export: ExportReport, profiles: list[ProfileReport]) -> list[list[str]]:
    """One row a network or precision; bytes are those of the ONNX file, or of the weights of what is not exported."""
    measured = {profile.name: profile for profile in profiles}
    rows = []
    if training.teacher:
        label = f"teacher {training.teacher.model}"
        rows.append(row(label, training.teacher.accuracy, training.teacher, export, measured, "teacher"))
    student = training.student.model
    if training.baseline:
        rows.append(
            row(f"{student}, labels only", training.baseline.accuracy, training.baseline, export, measured, None)
        )
    for name, control in training.controls.items():
        rows.append(row(f"{student}, {name}", control.accuracy, control, export, measured, None))
    if (original := export.original) and original.name != "teacher":
        file, profile = export.onnx[original.name], measured.get(original.name)
        price = costs(original.params, original.macs, file.bytes, profile)
        rows.append([f"original {original.model}, untrained", "-", *price])
    for precision in export.onnx:
        if precision not in ("teacher", "original"):
            quality = export.quality(precision)
            accuracy = quality.accuracy if quality else training.student.accuracy
            notes = export.engines[precision].notes if precision in export.engines else []
            notes = [f"exit {export.exit}", *notes] if export.exit not in (None, "all") else notes
            label = f"student {precision} ({', '.join(notes)})" if notes else f"student {precision}"
            rows.append(row(label, accuracy, export.deployed(training.student), export, measured, precision))
    return rows


def row(
    label: str,
    accuracy: float,
    model: TrainedModel,
    export: ExportReport,
    measured: dict[str, ProfileReport],
    name: str | None,
) -> list[str]:
    file, profile = export.onnx.get(name or ""), measured.get(name or "")
    count = file.bytes if file else model.weight_bytes
    return [label, percent(accuracy), *costs(model.params, model.macs, count, profile)]


def costs(params: int, macs: int, count: int, profile: ProfileReport | None) -> list[str]:
    p95 = profile.latency.percentiles["p95"] if profile else None
    return [
        many(params),
        many(macs),
        size(count),
        f"{profile.latency.median:.3f}" if profile else "-",
        f"{p95:.3f}" if p95 is not None else "-",
        size(profile.peak_memory_bytes) if profile else "-",
    ]
