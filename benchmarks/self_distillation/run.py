"""Is a compressed, self-distilled network as good as the original at the same budget?

    python benchmarks/self_distillation/run.py                  two CPU cores: ResNet-20 and VGG11, CIFAR-10
    python benchmarks/self_distillation/run.py --budget few     the same: ResNet-18 and VGG11, few images, 40 epochs
    python benchmarks/self_distillation/run.py --budget gpu     a GPU: ResNet-18 and VGG11, CIFAR-100, 200 epochs

For each network: the original; made of grouped and of depthwise convolutions and trained on the labels alone, with deep
supervision, and with self-distillation; three seeds each.  Interrupted, the same line goes on.  Writes results/ as JSON
(every cell) and Markdown.  The images come from KDEDGE_DATA, or the user's cache folder.
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cells import FROM_ORIGINAL, GRIDS, HERE, Cell, grid, perform_cell

from kdedge.core import console
from kdedge.core.console import many, size
from kdedge.core.deployment import Profile
from kdedge.core.rundir import write_json, write_text
from kdedge.pipeline.environment import environment
from kdedge.profile.measure import profile_model

Results = dict[tuple[str, str, str], list[dict[str, Any]]]
PRECISIONS = ("fp32", "int8")
UNCOUNTED = "Rows from the original do not count the original's own epochs, on top of which they are trained."


def train_all(cells: Sequence[Cell], budget: str, changes: list[str], runs: Path, jobs: int) -> list[dict[str, Any]]:
    """Every cell, `jobs` of them at a time, each in a process of its own."""
    found: dict[Cell, dict[str, Any]] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=quiet, max_tasks_per_child=1) as pool:
        futures = {pool.submit(perform_cell, cell, budget, changes, runs): cell for cell in cells}
        for number, future in enumerate(as_completed(futures), 1):
            cell = futures[future]
            if error := future.exception():
                pool.shutdown(wait=False, cancel_futures=True)
                raise error
            found[cell] = future.result()
            console.say(f"{number}/{len(cells)} {cell.name}: {100 * found[cell]['exits']['deepest']:.2f} %")
    return [found[cell] for cell in cells]


def quiet() -> None:
    console.OUT.configure(quiet=True, as_json=False)


def latencies(results: Results) -> dict[str, dict[str, list[float]]]:
    """Median and its interval in ms, batch 1, one thread, by network and conv, then precision; of the first seed."""
    spec, found = Profile(processes=5, threads=1), {}
    for (network, conv, _), cells in results.items():
        if f"{network} {conv}" not in found:
            files = {name: Path(cells[0]["run"]) / cells[0]["onnx"][name] for name in PRECISIONS}
            reports = {name: profile_model(file, "ort", spec).latency for name, file in files.items()}
            found[f"{network} {conv}"] = {
                name: [report.median, *(report.median_interval or ())] for name, report in reports.items()
            }
    return found


def spread(values: Sequence[float]) -> str:
    """Percent: the mean and the sample standard deviation."""
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}"


def accuracy_rows(results: Results) -> list[list[str]]:
    rows = []
    for (network, conv, training), cells in results.items():
        exits = [name for name in cells[0]["exits"] if name not in ("deepest", "ensemble")]
        shallow = ", ".join(spread([cell["exits"][name] for cell in cells]) for name in exits)
        together = [cell["exits"]["ensemble"] for cell in cells]
        deepest = [cell["exits"]["deepest"] for cell in cells]
        original = [cell["exits"]["deepest"] for cell in results[network, "dense", "labels"]]
        seconds = statistics.median(cell["fastest_epoch_seconds"] * cell["epochs"] for cell in cells)
        rows.append(
            [
                network, conv, training, spread(deepest), f"{100 * min(deepest):.2f}",
                "-" if conv == "dense" else "yes" if statistics.mean(deepest) >= min(original) else "no",
                shallow or "-", spread(together) if None not in together else "-",
                spread([cell["int8_top1"] for cell in cells]), f"{seconds:.0f}", str(len(cells)),
            ]
        )  # fmt: skip
    return rows


ACCURACY = (
    "network", "convolutions", "training", "top-1", "lowest seed", "mean at least the original's lowest", "exits",
    "all exits together", "int8 top-1", "seconds", "seeds",
)  # fmt: skip
COST = (
    "network", "convolutions", "parameters", "MACs", "ONNX fp32", "ONNX int8", "fp32 ms", "int8 ms",
    "MACs fewer", "fp32 faster", "int8 faster", "did fewer MACs buy time",
)  # fmt: skip


def bought(fewer: float, faster: float) -> str:
    """Whether the share of the time that is saved is near the share of the MACs that is."""
    share = (1 - 1 / faster) / (1 - 1 / fewer)
    return "no" if share < 0.1 else "less than half of it" if share < 0.5 else "yes"


def cost_rows(results: Results, times: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    """Each row says whether the time fell as the MACs did."""
    rows = []
    for network, conv in dict.fromkeys((network, conv) for network, conv, _ in results):
        cell, original = results[network, conv, "labels"][0], results[network, "dense", "labels"][0]
        mine, dense = times[f"{network} {conv}"], times[f"{network} dense"]
        fewer = original["macs"] / cell["macs"]
        faster = {name: dense[name][0] / mine[name][0] for name in PRECISIONS}
        rows.append(
            [
                network, conv, many(cell["params"]), many(cell["macs"]),
                *(size(cell["bytes"][name]) for name in PRECISIONS), *(f"{mine[name][0]:.3f}" for name in PRECISIONS),
                f"{fewer:.1f}x", *(f"{faster[name]:.1f}x" for name in PRECISIONS),
                "-" if conv == "dense" else ", ".join(f"{name}: {bought(fewer, faster[name])}" for name in PRECISIONS),
            ]
        )  # fmt: skip
    return rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def by_setting(cells: Sequence[dict[str, Any]]) -> Results:
    found: Results = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: (cell["network"], cell["conv"] != "dense")):
        found[cell["network"], cell["conv"], cell["training"]].append(cell)
    return dict(found)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--budget", choices=sorted(GRIDS), default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="cells trained at a time")
    parser.add_argument("--only", default="", help="cells whose names hold this, trained and no more")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=HERE / "runs")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args(arguments)
    cells = [cell for cell in grid(given.budget, given.seeds) if given.only in cell.name]
    originals = [cell for cell in cells if cell == cell.original]
    trained = []
    for some in (originals, [cell for cell in cells if cell not in originals]):  # some of these start from those
        trained += train_all(some, given.budget, given.changes, given.runs.absolute(), given.jobs)
    if given.only:
        return
    results = by_setting(trained)
    times = latencies(results)
    write(given.results / given.budget, trained, results, times, given.changes)


def write(
    stem: Path, trained: list[dict[str, Any]], results: Results, times: dict[str, Any], changes: list[str]
) -> None:
    made_with, first = environment(), trained[0]
    kept = [{key: value for key, value in cell.items() if key not in ("onnx", "run", "key")} for cell in trained]
    write_json(
        stem.with_suffix(".json"), {"cells": kept, "latency_ms": times, "changes": changes, "environment": made_with}
    )
    made = ", ".join(f"{key} {value}" for key, value in made_with.items())
    changed = f" Changed: {', '.join(changes)}." if changes else ""
    started = " " + UNCOUNTED if any(cell["training"] == FROM_ORIGINAL for cell in trained) else ""
    write_text(
        stem.with_suffix(".md"),
        f"{first['images']} training images, {first['epochs']} epochs.{changed} Top-1 on the 10,000 test images after "
        f"the last epoch, in percent: mean and sample standard deviation over seeds. Seconds: the fastest epoch times "
        f"the epochs, median over seeds.{started}\n\n{markdown(ACCURACY, accuracy_rows(results))}\n\n"
        f"Latency: ONNX Runtime, one thread, batch 1, end to end, median over five processes.\n\n"
        f"{markdown(COST, cost_rows(results, times))}\n\n{made}.\n",
    )


if __name__ == "__main__":
    main()
