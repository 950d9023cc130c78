"""What `kdedge profile` measures, held against a bare loop around ONNX Runtime, on the same session in one process.

    python benchmarks/profile/agreement.py [--rounds 40] [--seconds 0.25]

Two models of its own making: convolutions of about a millisecond, for the ratio of the medians, and a single node, for
what kdedge adds to a query in microseconds.  A round times bare, kdedge, kdedge, bare, and what counts is the median
over rounds: fresh processes differ by more than what is looked for here, turns within one do not.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.console import show_table
from kdedge.core.rundir import write_json, write_text
from kdedge.engine.base import backend
from kdedge.engine.feeds import input_shapes, random_feeds
from kdedge.engine.ort import OrtSession
from kdedge.pipeline.environment import environment
from kdedge.profile.meter import measure, warm_up

RESULTS = Path(__file__).parent / "results"
CHANNELS, LAYERS = 16, 24
COLUMNS = ["model", "bare, median ms", "kdedge, median ms", "kdedge / bare", "kdedge - bare, us a query", "queries"]
MILLISECOND, MICROSECOND = 1e6, 1e3


@dataclass(frozen=True)
class Round:
    """Medians of nanoseconds, in the order they were taken."""

    bare: tuple[float, float]
    kdedge: tuple[float, float]

    @property
    def ratio(self) -> float:
        return statistics.mean(self.kdedge) / statistics.mean(self.bare)

    @property
    def overhead_ns(self) -> float:
        return statistics.mean(self.kdedge) - statistics.mean(self.bare)


@dataclass(frozen=True)
class Result:
    model: str
    queries: int
    rounds: list[Round]


def convolutions() -> onnx.ModelProto:
    """3x3 convolutions of 32x32 feature maps, each with a ReLU."""
    generator = np.random.default_rng(0)
    nodes, weights, name = [], [], "image"
    for number in range(LAYERS):
        size = (CHANNELS, CHANNELS if number else 3, 3, 3)
        weights.append(numpy_helper.from_array(generator.normal(0, 0.1, size).astype(np.float32), f"w{number}"))
        nodes.append(helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [name := f"r{number}"]))
    return model(nodes, weights, ("image", [1, 3, 32, 32]), (name, [1, CHANNELS, 32, 32]))


def single_node() -> onnx.ModelProto:
    return model([helper.make_node("Neg", ["x"], ["y"])], [], ("x", [1, 8]), ("y", [1, 8]))


def model(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], takes: tuple[str, Any], gives: tuple[str, Any]
) -> onnx.ModelProto:
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in (takes, gives)]
    graph = helper.make_graph(nodes, "net", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


MODELS = {f"{LAYERS} convolutions": convolutions, "one node": single_node}


def bare_loop(query: Callable[[], object], queries: int) -> list[int]:
    """What one would write by hand."""
    samples = []
    for _ in range(queries):
        begin = time.perf_counter_ns()
        query()
        samples.append(time.perf_counter_ns() - begin)
    return samples


def compare(name: str, path: Path, rounds: int, seconds: float) -> Result:
    """Time one model on one thread, `seconds` for each of the four parts of a round."""
    ort = backend("ort")
    with ort.open(path, ort.settings({"threads": 1})) as session:
        assert isinstance(session, OrtSession)
        feeds = random_feeds(name, session.inputs, input_shapes(name, session.inputs, {}), seed=0)
        native = session._session  # the very one that kdedge's wraps
        expected = warm_up(lambda: session.run(feeds), cap=5).median_ns
        queries = max(10, int(seconds * 1e9 / expected))

        def bare() -> float:
            return statistics.median(bare_loop(lambda: native.run(None, feeds), queries))

        def ours() -> float:
            return float(np.median(measure(lambda: session.run(feeds), seconds, expected)))

        taken = []
        for _ in range(rounds):
            first, second, third, fourth = bare(), ours(), ours(), bare()
            taken.append(Round((first, fourth), (second, third)))
    return Result(name, queries, taken)


def row(result: Result) -> list[str]:
    bare = statistics.median(value for turn in result.rounds for value in turn.bare)
    ours = statistics.median(value for turn in result.rounds for value in turn.kdedge)
    return [
        result.model,
        f"{bare / MILLISECOND:.4f}",
        f"{ours / MILLISECOND:.4f}",
        spread([turn.ratio for turn in result.rounds], 4),
        spread([turn.overhead_ns / MICROSECOND for turn in result.rounds], 2),
        str(result.queries),
    ]


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and where the middle half of the rounds lies."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def markdown(rows: Sequence[Sequence[str]], rounds: int, record: dict[str, Any]) -> str:
    lines = [
        "# What `kdedge profile` measures against a bare loop",
        "",
        f"Written by `python benchmarks/profile/agreement.py`: {rounds} rounds of bare, kdedge, kdedge, bare on one "
        "session and one thread. Ratios and differences are taken within a round: median (middle half of the rounds). "
        "Queries: of the bare loop in each part of a round.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" + "|---:" * (len(COLUMNS) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"- {name}: {value}" for name, value in record.items()),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each part of a round")
    parser.add_argument("--json", type=Path, default=RESULTS / "agreement.json", help="results here, and .md beside")
    given = parser.parse_args(arguments)
    if given.rounds < 2:
        parser.error("--rounds: a spread takes at least 2")
    load = round(os.getloadavg()[0], 2)
    results = []
    with tempfile.TemporaryDirectory(prefix="kdedge-") as folder:
        for number, (name, make) in enumerate(MODELS.items()):
            path = Path(folder, f"{number}.onnx")
            onnx.save(make(), path)
            results.append(compare(name, path, given.rounds, given.seconds))
    record = {**environment(), "cpus": os.cpu_count(), "load average before": load}
    rows = [row(result) for result in results]
    show_table("kdedge profile against a bare loop", COLUMNS, rows)
    setting = {"rounds": given.rounds, "seconds": given.seconds}
    write_json(given.json, {"machine": record, "setting": setting, "results": [asdict(result) for result in results]})
    write_text(given.json.with_suffix(".md"), markdown(rows, given.rounds, record))


if __name__ == "__main__":
    main()
