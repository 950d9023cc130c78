"""How long a command takes to answer: the wall time of whole processes, in turns.

python benchmarks/startup.py [--runs 15] [--run RUN]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kdedge.core.console import show_table
from kdedge.core.rundir import write_json, write_text
from kdedge.pipeline.environment import environment

RESULTS = Path(__file__).parent / "results"
KDEDGE = str(Path(sys.executable).with_name("kdedge"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "kdedge --help": [KDEDGE, "--help"],
    "kdedge ls": [KDEDGE, "ls"],
}
COLUMNS = ["command", "median s", "least", "greatest"]


def seconds_of(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(runs: int, commands: dict[str, list[str]]) -> dict[str, list[float]]:
    """Seconds of each command; one round more than asked, whose first, cold one is left out."""
    rounds = [{name: seconds_of(command) for name, command in commands.items()} for _ in range(runs + 1)]
    return {name: [taken[name] for taken in rounds[1:]] for name in commands}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--run", help="a finished run, whose gate is timed as well")
    given = parser.parse_args(arguments)
    runs = given.runs
    gate = {"kdedge gate": [KDEDGE, "gate", given.run, "--advisory"]} if given.run else {}
    load = round(os.getloadavg()[0], 2)
    seconds = measure(runs, COMMANDS | gate)
    rows = [
        [name, f"{statistics.median(taken):.3f}", f"{min(taken):.3f}", f"{max(taken):.3f}"]
        for name, taken in seconds.items()
    ]
    record = {**environment(), "cpus": os.cpu_count(), "load average before": load}
    show_table("startup", COLUMNS, rows)
    write_json(RESULTS / "startup.json", {"machine": record, "seconds": seconds})
    lines = [
        "# Startup",
        "",
        f"Written by `python benchmarks/startup.py`: wall time of whole processes, {runs} runs in turns.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---|---:|---:|---:|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"- {name}: {value}" for name, value in record.items()),
    ]
    write_text(RESULTS / "startup.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
