"""Latency of int8 layouts on this CPU, measured in turns: which one ONNX Runtime computes fastest here.

    python benchmarks/layouts.py

Networks with random weights, one image a query, one thread; a round is a few queries of every engine, so that whatever
else the machine does falls on all of them.  What counts is the median over rounds of the ratio to fp32 within a round.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from kdedge.core.console import show_table
from kdedge.core.deployment import Export, Quantization
from kdedge.core.recipe import Normalize
from kdedge.core.rundir import write_json, write_text
from kdedge.engine.base import Session, backend
from kdedge.engine.machine import identity
from kdedge.export.int8 import to_int8
from kdedge.export.layout import choose_layout, host
from kdedge.export.onnx import export_onnx
from kdedge.models.zoo import build_model
from kdedge.pipeline.environment import environment

RESULTS = Path(__file__).parent / "results"
LABELS = tuple(f"class {index}" for index in range(10))
NETWORKS = {"resnet8": (32, {"conv": "depthwise"}), "resnet20": (32, {}), "torchvision:resnet18": (128, {})}
"""Side of their images, and options."""
LAYOUTS = {
    "uint8": Quantization(),
    "uint8, 7-bit weights": Quantization(reduce_range=True),
    "int8": Quantization(activations="int8"),
    "symmetric int8": Quantization(activations="int8", symmetric=True),
    "symmetric int8, float biases": Quantization(activations="int8", symmetric=True, quantize_bias=False),
}
COLUMNS = ("network", "layout", "median ms", "of fp32's time", "int8 nodes")
QUERIES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    rows = [row for name in NETWORKS for row in measure(name, rounds)]
    show_table(f"int8 layouts: {host()}", COLUMNS, rows)
    chosen = choose_layout(Quantization(activations="auto")).told()[0]
    found = {"cpu": identity(), "auto": chosen, "environment": environment(), "rounds": rounds}
    write_json(RESULTS / "layouts.json", found | {"rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows]})
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    text = f"{identity()['cpu']}, kind {host()}; auto: {chosen}.\n\n" + "\n".join(lines) + "\n"
    write_text(RESULTS / "layouts.md", text)


def measure(name: str, rounds: int) -> list[list[str]]:
    """One row a layout, fp32 first."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = open_engines(name, Path(folder))
        times: dict[str, list[float]] = {layout: [] for layout in sessions}
        for number in range(rounds):
            for layout in list(sessions)[:: 1 if number % 2 else -1]:
                times[layout].append(time_of(sessions[layout]))
    rows = []
    for layout, session in sessions.items():
        ratio = statistics.median(mine / fp32 for mine, fp32 in zip(times[layout], times["fp32"], strict=True))
        built = session.precision_built()
        nodes = f"{built.get('int8', 0)} of {sum(built.values())}"
        rows.append([name, layout, f"{statistics.median(times[layout]):.3f}", f"{ratio:.2f}", nodes])
    return rows


def open_engines(name: str, folder: Path) -> dict[str, Session]:
    side, options = NETWORKS[name]
    torch.manual_seed(0)
    network = build_model(name, options, len(LABELS), (3, side, side))
    normalize = Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    export_onnx(network, folder / "fp32.onnx", (3, side, side), Export(), normalize, LABELS)
    images = np.random.default_rng(0).standard_normal((16, 3, side, side), dtype=np.float32)
    for layout, how in LAYOUTS.items():
        to_int8(folder / "fp32.onnx", folder / f"{layout}.onnx", images, Export(quantization=how))
    return {layout: opened(folder / f"{layout}.onnx", images[:1]) for layout in ("fp32", *LAYOUTS)}


def opened(path: Path, image: np.ndarray) -> Session:
    engine = path.with_suffix(".engine.onnx")
    backend("ort").build(path, engine, {"threads": 1})
    session = backend("ort").open(engine, {"threads": 1})
    for _ in range(QUERIES):
        session.run({"images": image})
    return session


def time_of(session: Session) -> float:
    """Milliseconds of a query."""
    began = time.perf_counter()
    for _ in range(QUERIES):
        session.enqueue()
    return (time.perf_counter() - began) / QUERIES * 1e3


if __name__ == "__main__":
    main()
