"""Images a second of one distillation step: kdedge's, a bare PyTorch loop's and a naive one's, measured in turns.

    python benchmarks/loop.py [--device cuda] [--channels-last] [--student resnet20 --teacher resnet56]

All three train the same student from the same frozen teacher by SGD on the sum of cross-entropy and KD, with random
crops and mirroring, in one process.  They differ in how the step is written and where its images come from:

    bare    the math by hand, with nothing around it; images augmented as tensors, a batch at a time
    kdedge  what `kdedge distill` runs: recipe objects, Fabric, feature taps, metrics, loss checks
    naive   the bare step fed by PIL transforms in DataLoader workers

A round is one short epoch of each, forwards in one round and backwards in the next, so that whatever else the machine
does falls on all of them; what counts is the median over rounds of the ratio within a round.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from contenders import Epoch, Pair, Setting, bare_epoch, images, kdedge_epoch, naive_epoch

from kdedge.core.console import show_table
from kdedge.core.rundir import write_json, write_text
from kdedge.pipeline.environment import environment

RESULTS = Path(__file__).parent / "results"
PAIRS = (Pair("resnet8", "depthwise", "resnet20"), Pair("resnet20", "dense", "resnet56"))
"""A light pair, in which what surrounds the networks shows most, and the usual one."""


@dataclass(frozen=True)
class Result:
    pair: Pair
    steps: int
    """Of one contender in one round."""
    images_per_second: dict[str, list[float]]
    """By contender, a figure a round."""
    others: float = 0.0
    """CPUs that other processes kept busy meanwhile."""

    def median(self, name: str) -> float:
        return statistics.median(self.images_per_second[name])

    def ratios(self, name: str) -> list[float]:
        """kdedge's speed over the contender's, a figure a round."""
        rounds = self.images_per_second
        return [ours / other for ours, other in zip(rounds["kdedge"], rounds[name], strict=True)]


def seconds_of(epoch: Epoch, device: torch.device) -> float:
    wait(device)
    began = time.perf_counter()
    epoch()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def steps_a_round(pair: Pair, setting: Setting) -> int:
    """How many steps of the bare loop take about as long as asked."""
    epoch = bare_epoch(pair, setting, images(setting.batch))
    quickest = min(seconds_of(epoch, setting.device) for _ in range(5))  # the first few warm up, others may disturb
    return max(2, round(setting.seconds / quickest))


def compare(pair: Pair, setting: Setting) -> Result:
    """Run the three in turns."""
    steps = steps_a_round(pair, setting)
    part = images(steps * setting.batch)
    with kdedge_epoch(pair, setting, part) as ours:
        epochs = {
            "bare": bare_epoch(pair, setting, part),
            "kdedge": ours,
            "naive": naive_epoch(pair, setting, part),
        }
        speeds: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(setting.rounds + 1):
            for name in list(epochs) if number % 2 else reversed(epochs):
                taken = seconds_of(epochs[name], setting.device)
                if number:  # the first round warms up: memory, algorithms, workers
                    speeds[name].append(len(part) / taken)
    return Result(pair, steps, speeds)


def watched(measure: Callable[[Pair, Setting], Result], pair: Pair, setting: Setting) -> Result:
    """With the work of other processes meanwhile; this one's workers have ended, and are counted, when it returns."""
    began, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    result = measure(pair, setting)
    others = busy_seconds() - busy - (own_seconds() - own)
    return replace(result, others=max(0.0, others / (time.perf_counter() - began)))


def busy_seconds() -> float:
    """Of all CPUs together, since the machine started."""
    spent = psutil.cpu_times()
    return spent.user + spent.system


def own_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    return sum(os.times()[:4])


def rows(results: Sequence[Result]) -> list[list[str]]:
    return [
        [
            str(result.pair),
            *(f"{result.median(name):.0f}" for name in ("bare", "kdedge", "naive")),
            *(spread(result.ratios(name)) for name in ("bare", "naive")),
            f"{result.others:.2f}",
        ]
        for result in results
    ]


def spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"


COLUMNS = ["student and teacher", "bare", "kdedge", "naive", "kdedge / bare", "kdedge / naive", "others"]


def machine(setting: Setting) -> dict[str, Any]:
    found: dict[str, Any] = {**environment(), "cpus": os.cpu_count(), "threads": setting.threads}
    if setting.device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(setting.device)
    return found


def markdown(results: Sequence[Result], setting: Setting, record: dict[str, Any]) -> str:
    lines = [
        f"# Training step on {setting.device.type}: images a second",
        "",
        f"Written by `python benchmarks/loop.py`. Batches of {setting.batch}, images 3x32x32, fp32, "
        f"channels_last {'on' if setting.channels_last else 'off'}. "
        f"Medians of {setting.rounds} rounds; ratios within a round: median (least..greatest). "
        "Others: CPUs that other processes kept busy meanwhile; near 0, or the figures say little.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" + "|---:" * (len(COLUMNS) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows(results)),
        "",
        *(f"- {line}" for line in described(record)),
    ]
    return "\n".join(lines) + "\n"


def described(record: dict[str, Any]) -> list[str]:
    return [f"{name}: {value}" for name, value in record.items()]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--student", help="one pair instead of the usual two; with --teacher")
    parser.add_argument("--teacher")
    parser.add_argument("--conv", default="dense", help="of the student: dense, grouped, depthwise")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each contender in each round, about")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--json", type=Path, help="results here (and .md beside); else results/loop-DEVICE")
    given = parser.parse_args(arguments)
    if (given.student is None) != (given.teacher is None):
        parser.error("--student and --teacher go together")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if given.device == "auto" else given.device
    setting = Setting(torch.device(kind), given.threads, given.batch, given.channels_last, given.rounds, given.seconds)
    torch.set_num_threads(setting.threads)
    pairs = [Pair(given.student, given.conv, given.teacher)] if given.student else PAIRS
    before = os.getloadavg()[0]
    results = [watched(compare, pair, setting) for pair in pairs]
    record = machine(setting) | {"load average before": round(before, 2), "after": round(os.getloadavg()[0], 2)}
    show_table(f"images a second on {kind}", COLUMNS, rows(results), "\n".join(described(record)))
    out = given.json or RESULTS / f"loop-{kind}{'-channels_last' if setting.channels_last else ''}.json"
    kept = {"batch": setting.batch, "channels_last": setting.channels_last, "rounds": setting.rounds}
    write_json(out, {"machine": record, "setting": kept, "results": [asdict(result) for result in results]})
    write_text(out.with_suffix(".md"), markdown(results, setting, record))


if __name__ == "__main__":
    main()
