"""What the page says of a gate that measured the run beside another model."""

from kdedge.core.console import percent, quantity
from kdedge.core.paired import PairedTimes

COLUMNS = ("model", "base", "this run", "ratio", "95 % interval", "allowed", "processes", "verdict")


def rows(times: list[PairedTimes]) -> list[list[str]]:
    return [
        [
            each.name,
            quantity(each.base_ms, "ms"),
            quantity(each.new_ms, "ms"),
            "-" if each.ratio is None else f"{each.ratio:.3f}",
            "{:.3f} to {:.3f}".format(*each.interval) if each.interval else "-",
            f"{1 + each.limit:.3f}",
            str(len(each.ratios)),
            each.outcome,
        ]
        for each in times
    ]


def remarks(times: list[PairedTimes]) -> list[str]:
    """Why processes do not count, or count for less."""
    found = [f"{each.name}: throttled, {text}" for each in times for text in dict.fromkeys(each.throttled)]
    return found + [
        f"{each.name}: the warm-up did not settle in {each.unsettled} processes" for each in times if each.unsettled
    ]


def summary(times: list[PairedTimes]) -> str:
    seconds = sum(each.seconds for each in times)
    processes = sum(len(each.ratios) for each in times)
    slower = [each.ratio - 1 for each in times if each.ratio is not None]
    most = f" Largest change of the latency: {percent(max(slower, key=abs))}." if slower else ""
    return f"Each process measured both models in turns; {processes} processes in {seconds:.0f} s.{most}"
