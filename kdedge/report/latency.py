"""What the page says of a measured latency, of the processes behind it, and of what disturbed them."""

import numpy as np

from kdedge.core.console import many, size
from kdedge.core.profiling import ProfileReport
from kdedge.report.view import Pairs, milliseconds

PROCESSES = ("process", "median ms", "p95 ms", "last against first quarter", "first query ms", "warm-up", "settled")


def facts(profile: ProfileReport) -> Pairs:
    latency = profile.latency
    unsupported = f"- (needs more than {latency.n} samples)"
    return [
        ("median", milliseconds(latency.median)),
        (
            "its 95 % interval",
            "{:.3f} to {:.3f} ms".format(*latency.median_interval) if latency.median_interval else "-",
        ),
        ("mean, deviation", f"{milliseconds(latency.mean)}, {milliseconds(latency.std)}"),
        *((name, unsupported if value is None else milliseconds(value)) for name, value in latency.percentiles.items()),
        ("least, greatest", f"{milliseconds(latency.min)}, {milliseconds(latency.max)}"),
        ("samples", f"{latency.n}, {latency.processes} processes"),
        ("outliers among them", str(latency.outliers)),
        *device_facts(profile),
        ("throughput", f"{many(profile.throughput)} images/s at batch {profile.batch}"),
        ("opening, first query", f"{milliseconds(profile.open_ms)}, {milliseconds(profile.first_ms)}"),
        ("peak memory", f"+ {size(profile.peak_memory_bytes)}"),
        *energy_facts(profile),
        ("model", f"{profile.model}, {size(profile.model_bytes)}"),
        ("backend", f"{profile.backend}, {profile.threads} threads"),
        ("provider", profile.provider),
        (
            "precision built",
            ", ".join(f"{count} {name}" for name, count in profile.precision_built.items()) or "not read back",
        ),
    ]


def device_facts(profile: ProfileReport) -> Pairs:
    """Of a device with a clock of its own."""
    device = profile.device_latency
    return [("on the device alone, median", f"{milliseconds(device.median)}, without copies")] if device else []


def energy_facts(profile: ProfileReport) -> Pairs:
    energy = profile.energy
    if energy is None:
        return []
    return [
        ("energy per inference above idle", f"{energy.net_mj} mJ"),
        ("energy per inference in all", f"{energy.gross_mj} mJ"),
        ("power, idle power", f"{energy.power_mw} mW, {energy.idle_mw:.0f} mW"),
        ("energy measured by", energy.source),
    ]


def trouble(profile: ProfileReport) -> list[str]:
    """What slowed the machine down or kept it from settling while this was measured."""
    unsettled = [str(place) for place, sample in enumerate(profile.samples, 1) if not sample.settled]
    cut = [f"the warm-up was cut in process {', '.join(unsettled)}"] if unsettled else []
    slowed = [f"slowed down by {text}" for text in profile.throttled]
    return [*slowed, *cut, *(text for text in profile.notes if text not in profile.throttled)]


def process_rows(profile: ProfileReport) -> list[list[str]]:
    """Each process by itself, and how its last quarter of queries compares with its first."""
    rows = []
    for place, sample in enumerate(profile.samples, 1):
        times = np.asarray(sample.latency_ms)
        quarter = max(len(times) // 4, 1)
        drift = np.median(times[-quarter:]) / np.median(times[:quarter]) - 1
        rows.append(
            [
                str(place),
                f"{np.median(times):.3f}",
                f"{np.quantile(times, 0.95):.3f}",
                f"{100 * drift:+.1f} %",
                f"{sample.first_ms:.3f}",
                f"{sample.warmup_queries} queries, {sample.warmup_ms:.0f} ms",
                "yes" if sample.settled else "no",
            ]
        )
    return rows
