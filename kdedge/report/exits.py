"""What is said of early exits, on the page and in the terminal: rows and sentences."""

from collections.abc import Iterator

from kdedge.core.console import many, percent, quantity
from kdedge.core.exits import ExitsReport

COLUMNS = ("exit", "stage", "parameters", "MACs", "latency ms", "val. top-1", "test top-1", "stop here")


def rows(report: ExitsReport) -> list[list[str]]:
    """Each exit by itself with the share of the test images that stop there, all exits together, and none."""
    alone = [
        [
            found.name,
            found.stage,
            many(found.params),
            many(found.macs),
            f"{found.latency_ms:.3f}",
            percent(found.validation_top1),
            percent(found.test_top1),
            percent(share),
        ]
        for found, share in zip(report.exits, report.test.shares, strict=True)
    ]
    test, last, without = report.test, report.exits[-1], report.without
    together = [
        f"stop at {report.validation.threshold:.4f}",
        "",
        many(last.params),
        many(test.macs),
        f"{test.latency_ms:.3f}",
        percent(report.validation.top1),
        percent(test.top1),
        "",
    ]
    nothing = ["without exits", "", many(without.params), many(without.macs), f"{without.latency_ms:.3f}"]
    return [*alone, together, [*nothing, percent(last.validation_top1), percent(last.test_top1), ""]]


def summary(report: ExitsReport) -> str:
    """The operating point in a sentence."""
    test, deepest, images = report.test, report.exits[-1].macs, report.validation_images
    chosen = (
        "as it was given"
        if report.wanted is None
        else f"chosen on {images} validation images for {percent(report.wanted)} or more"
    )
    return (
        f"{report.precision}: an image stops at the first exit that gives a class a probability of at least "
        f"{report.validation.threshold:.4f}, {chosen}. On {report.test_images} test images: top-1 "
        f"{percent(test.top1)} for {many(test.macs)} MACs on average, {percent(test.macs / deepest)} of the deepest "
        f"exit's {many(deepest)}."
    )


def remarks(report: ExitsReport) -> Iterator[str]:
    """How it was measured, and what did not pay."""
    measured, last, without = report.measured, report.exits[-1], report.without
    ms = "ms"
    yield (
        f"Measured one test image at a time, {measured.images} images in each of {measured.processes} fresh processes, "
        f"{report.threads} threads: {quantity(measured.mean_ms, ms)} on average (median "
        f"{quantity(measured.median_ms, ms)}), where the medians of the stages promise "
        f"{quantity(measured.predicted_ms, ms)}; top-1 {percent(measured.top1)}."
    )
    yield (
        f"An image that goes to the end takes {quantity(last.latency_ms, ms)} and {many(last.macs)} MACs; "
        f"the student without exits {quantity(without.latency_ms, ms)} and {many(without.macs)}."
    )
    dearer = {"MACs": report.test.macs >= without.macs, "time": measured.mean_ms >= without.mean_ms}
    if lost := [cost for cost, more in dearer.items() if more]:
        yield (
            f"Stopping early buys no {' and no '.join(lost)} here: the student without exits takes "
            f"{many(without.macs)} MACs and {quantity(without.mean_ms, ms)} on average."
        )
    yield from report.notes
