"""How often the paired gate is wrong: false alarms of a model against itself, and slow-downs that it finds.

    python benchmarks/gate/run.py                  100 gates without a slow-down, 40 with 10 %, 40 with 5 %
    python benchmarks/gate/run.py --gates 2        as many of each, to try it out
    python benchmarks/gate/run.py --table          only the table, of the gates that there are

The model takes about 1 ms; beside every other gate a second process keeps a core busy.  Interrupted, the same line
goes on: results/gates.jsonl has a line for each gate, and the Markdown beside it is written anew after each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge.core import console
from kdedge.core.deployment import Profile
from kdedge.core.markdown import table
from kdedge.core.rundir import write_text
from kdedge.pipeline.against import SECONDS
from kdedge.pipeline.environment import environment
from kdedge.pipeline.paired import measure_until_clear, paired_request
from kdedge.profile.measure import Model
from kdedge.profile.targets import LocalTarget

RESULTS = Path(__file__).parent / "results"
GATES = {0.0: 100, 0.10: 40, 0.05: 40}
"""How many, by slow-down."""
WANTED = {0.0: "at most 2 %", 0.10: "at least 95 %", 0.05: "at least 80 %"}
BUSY = "while True: pass"
MADE_WITH = ("cpu", "python", "kdedge", "onnxruntime", "numpy")
COLUMNS = (
    "slow-down", "gates", "of them beside a busy process", "say regression", "wanted", "say unstable",
    "seconds, median", "seconds, most", "processes, median", "spread of a process's ratio",
)  # fmt: skip


class Case(NamedTuple):
    slower: float
    number: int

    @property
    def busy(self) -> bool:
        return self.number % 2 == 1


def write_model(path: Path, channels: int = 24, layers: int = 6, side: int = 32) -> None:
    """Convolutions with random weights: about 1 ms on one core."""
    draw, nodes, weights, last, before = np.random.default_rng(0), [], [], "x", 3
    for layer in range(layers):
        values = draw.normal(size=(channels, before, 3, 3)) / np.sqrt(9 * before)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        last, before = f"r{layer}", channels
    nodes += [helper.make_node("GlobalAveragePool", [last], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels])
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@contextmanager
def second_process(wanted: bool) -> Iterator[None]:
    """Loads a core."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def base_ms(request: dict[str, Any]) -> float:
    """Median over three processes of the model's median, of which the slow-downs are a share."""
    return statistics.median(LocalTarget().run(request)["base_ms"] for _ in range(3))


def gate(case: Case, request: dict[str, Any], wait_ms: float) -> dict[str, Any]:
    """One gate: the model against itself, each query of the new one slowed down."""
    request = {**request, "wait_ms": wait_ms}
    with second_process(case.busy):
        times = measure_until_clear("model", request, LocalTarget(), SECONDS)
    load = os.getloadavg()[0]
    return {**case._asdict(), "busy": case.busy, "load": load, **times.model_dump(mode="json")}


def done(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rows(gates: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [row(slower, [one for one in gates if one["slower"] == slower]) for slower in GATES]


def row(slower: float, gates: Sequence[dict[str, Any]]) -> list[str]:
    name = f"{100 * slower:g} %" if slower else "none"
    if not gates:
        return [name, "0", *["-"] * (len(COLUMNS) - 2)]
    seconds = [one["seconds"] for one in gates]
    spreads = [statistics.stdev(one["ratios"]) for one in gates if len(one["ratios"]) > 1]
    regressions, unstable = (sum(one["outcome"] == said for one in gates) for said in ("regression", "unstable"))
    return [
        name, str(len(gates)), str(sum(one["busy"] for one in gates)),
        f"{regressions} ({100 * regressions / len(gates):.1f} %)", WANTED[slower], str(unstable),
        f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}",
        f"{statistics.median(len(one['ratios']) for one in gates):g}",
        f"{100 * statistics.median(spreads):.2f} %" if spreads else "-",
    ]  # fmt: skip


def write_table(path: Path, gates: Sequence[dict[str, Any]]) -> None:
    machine = ", ".join(f"{name} {value}" for name, value in environment().items() if name in MADE_WITH)
    loads = [one["load"] for one in gates]
    said = (
        f"A model of {statistics.median(one['base_ms'] for one in gates):.2f} ms, one thread; a ratio's unit is a "
        f"process.  Load average beside the gates: {min(loads):.1f} to {max(loads):.1f}, on {os.cpu_count()} CPUs."
    )
    write_text(path, "\n".join([*table(COLUMNS, rows(gates)), "", said, "", f"{machine}."]) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, help="of each kind, instead of 100, 40 and 40")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    asked = parser.parse_args(arguments)
    log = asked.results / "gates.jsonl"
    gates = done(log)
    known = {(one["slower"], one["number"]) for one in gates}
    cases = [Case(slower, number) for slower, many in GATES.items() for number in range(asked.gates or many)]
    asked.results.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="kdedge-") as folder:
        path = Path(folder, "model.onnx")
        write_model(path)
        model = Model("model", path, path, "ort", {}, {"threads": 1})
        request = paired_request(model, model, Profile())
        left = [] if asked.table else [case for case in cases if case not in known]
        whole = base_ms(request) if left else 0.0
        for case in left:
            gates.append(gate(case, request, case.slower * whole))
            write_text(log, "".join(json.dumps(one) + "\n" for one in gates))
            write_table(asked.results / "gates.md", gates)
            console.say(f"slow-down {case.slower:g}, gate {case.number}: {gates[-1]['outcome']}")
    if gates:
        write_table(asked.results / "gates.md", gates)
    console.show_table("paired gates", COLUMNS, rows(gates))


if __name__ == "__main__":
    main()
