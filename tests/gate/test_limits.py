"""The README's table of limits says what the code does."""

import re
from pathlib import Path

from kdedge.gate.limits import ENGINE_BYTES, LARGER, MEASURED, SIGNIFICANT, WORSE, WORSE_BOXES, WORSE_UNPAIRED

README = Path(__file__).parents[2] / "README.md"


def test_readme_states_the_limits() -> None:
    table = re.search(r"^\| metric \| worse is \|\n\|---\|---\|\n((?:\|.*\n)+)", README.read_text(), re.MULTILINE)
    assert table
    rows = dict(line.strip("| ").split(" | ", 1) for line in table[1].splitlines())
    assert rows["bytes of the ONNX file, of the engine"] == (
        f"+ {100 * LARGER['bytes']:g} %, + {100 * ENGINE_BYTES.relative:g} %"
    )
    assert rows["top-1"].startswith(f"- {100 * WORSE:g} points and p < {SIGNIFICANT:g} by McNemar's exact test")
    assert f"- {100 * WORSE_UNPAIRED:g} points where those are not known" in rows["top-1"]
    assert rows["mAP of a detector"].startswith(f"- {100 * WORSE_BOXES:g} point: ")
    slower, tail = MEASURED["latency_median_ms"], MEASURED["latency_p95_ms"]
    assert rows["latency, its p95"].startswith(
        f"+ {100 * slower.relative:g} % and + {slower.absolute:g} ms, "
        f"+ {100 * tail.relative:g} % and + {tail.absolute:g} ms"
    )
    memory, energy = MEASURED["peak_memory_bytes"], MEASURED["energy_net_mj"]
    assert rows["peak memory, energy"].startswith(
        f"+ {100 * memory.relative:g} % and + {memory.absolute / 2**20:g} MiB, "
        f"+ {100 * energy.relative:g} % and + {energy.absolute:g} mJ"
    )
