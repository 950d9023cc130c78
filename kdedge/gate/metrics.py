"""Every number of a run that a gate can hold, each with its unit and direction."""

from kdedge.core.correctness import Correctness
from kdedge.core.gating import Snapshot
from kdedge.core.profiling import ProfileReport
from kdedge.core.quality import BoxQuality, Measure, Quality
from kdedge.core.report import ExportReport, Metric, TrainedModel, TrainingReport
from kdedge.gate.baseline import fingerprint_of


def snapshot(training: TrainingReport, export: ExportReport, profiles: list[ProfileReport]) -> Snapshot:
    return Snapshot(
        fingerprint=fingerprint_of(profiles),
        metrics=collect(training, export, profiles),
        answers=answers_of(training, export),
    )


def collect(training: TrainingReport, export: ExportReport, profiles: list[ProfileReport]) -> dict[str, Metric]:
    """By the names that a budget knows them by.

    The accuracy of a precision is that of the built engine; of the ONNX file where no engine was compared.
    """
    student = export.deployed(training.student)
    metrics = trained(training, student) | sizes(student)
    for precision, file in export.engines.items():
        metrics[f"{precision}/engine_bytes"] = cost(file.bytes, "bytes")
    for precision, file in export.onnx.items():
        metrics[f"{precision}/onnx_bytes"] = cost(file.bytes, "bytes")
        if file.layers is not None:
            metrics[f"{precision}/onnx_layers"] = cost(file.layers, "count")
        if quality := export.quality(precision):
            metrics |= {f"{precision}/{name}": value for name, value in judged(quality, training.measure).items()}
    for profile in profiles:
        metrics |= built(profile) | profiled(profile)
    return metrics


def answers_of(training: TrainingReport, export: ExportReport) -> dict[str, Correctness]:
    """Of top-1, image by image where that is known; of the student where it is of all test images."""
    torch = next((hop for hop in export.hops if hop.name == "torch"), None)
    if torch and torch.quality.images != training.test_images:
        torch = None
    hops = {"student": torch} | {precision: export.hop(precision) for precision in export.onnx}
    key = training.measure.key
    return {f"{name}/{key}": hop.correctness for name, hop in hops.items() if hop and hop.correctness}


def trained(training: TrainingReport, student: TrainedModel) -> dict[str, Metric]:
    """Args:
    student: as it was exported: of one cut after an early exit, what is left of it.
    """
    key = training.measure.key
    metrics = {f"student/{key}": accuracy(student.accuracy)}
    if training.teacher:
        metrics[f"teacher/{key}"] = accuracy(training.teacher.accuracy)
    if training.baseline:
        metrics[f"student/{key}_gain"] = accuracy(student.accuracy - training.baseline.accuracy)
    return metrics


def sizes(student: TrainedModel) -> dict[str, Metric]:
    return {"student/params": cost(student.params, "count"), "student/macs": cost(student.macs, "count")}


def judged(quality: Quality | BoxQuality, measure: Measure) -> dict[str, Metric]:
    metrics = {measure.key: accuracy(quality.accuracy)}
    if isinstance(quality, BoxQuality):
        metrics |= {"ap50": accuracy(quality.ap50), "ap75": accuracy(quality.ap75)}
    return metrics


def built(profile: ProfileReport) -> dict[str, Metric]:
    """Layers of the engine that compute, and those that fell back to another type than was asked for."""
    layers = sum(profile.precision_built.values())
    if not layers:
        return {}
    metrics = {f"{profile.name}/engine_layers": cost(layers, "count")}
    if profile.precision_asked not in (None, "fp32"):
        kept = profile.precision_built.get(profile.precision_asked, 0)
        metrics[f"{profile.name}/fallback_layers"] = cost(layers - kept, "count")
    return metrics


def profiled(profile: ProfileReport) -> dict[str, Metric]:
    """A percentile that the samples do not support is no metric."""
    memory = [float(sample.peak_bytes - sample.baseline_bytes) for sample in profile.samples]
    metrics = {
        "latency_median_ms": timed(profile, profile.latency.median, profile.latency.by_process.get("p50")),
        "peak_memory_bytes": cost(profile.peak_memory_bytes, "bytes").model_copy(update={"samples": memory}),
    }
    if device := profile.device_latency:
        metrics["device_latency_median_ms"] = timed(profile, device.median, device.by_process.get("p50"))
    p95 = profile.latency.percentiles.get("p95")
    if p95 is not None:
        metrics["latency_p95_ms"] = timed(profile, p95, profile.latency.by_process.get("p95"))
    if profile.energy:
        net = profile.energy.net_mj
        metrics["energy_net_mj"] = cost(net.mean, "mJ").model_copy(update={"samples": list(net.values)})
    return {f"{profile.name}/{name}": metric for name, metric in metrics.items()}


def timed(profile: ProfileReport, value: float, by_process: list[float] | None) -> Metric:
    """Of a process whose warm-up did not settle nothing counts; where most are such, it is not stable."""
    settled = [sample.settled for sample in profile.samples]
    trouble = "the measurement did not settle; measure again on a quiet machine" if not most(settled) else ""
    if profile.throttled:
        trouble = "; ".join(profile.throttled)
    samples = [each for each, counts in zip(by_process or [], settled, strict=False) if counts]
    return Metric(value=value, unit="ms", better="lower", stable=not trouble, trouble=trouble, samples=samples)


def most(settled: list[bool]) -> bool:
    return 2 * sum(settled) > len(settled)


def accuracy(value: float) -> Metric:
    return Metric(value=value, unit="fraction", better="higher")


def cost(value: float, unit: str) -> Metric:
    return Metric(value=value, unit=unit, better="lower")
