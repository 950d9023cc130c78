"""5,000 broken variants of what trtexec prints and exports: no error but kdedge's own, and no number that is not there.

What counts as being there is decided here by looking for words, not by the patterns of the readers.
"""

import json
import os
from pathlib import Path

import pytest
import trtexec_texts as texts
from mutants import mutants

from kdedge.core.errors import KdedgeError
from kdedge.profile.trtexec_json import read_layer_times, read_layers, read_outputs, read_times
from kdedge.profile.trtexec_log import read_log

FOLDER = Path(os.environ.get("KDEDGE_SAMPLES", "none"))
LARGE = 30_000  # characters: fewer variants of such a file
FEWER = 40
WORDS = {
    "throughput_qps": ("hroughput: ", (" qps",)),
    "walltime_s": ("alltime: ", (" s",)),
    "compute_s": ("ompute", (" s",)),
    "queries": ("Timing trace has ", (" queries",)),
    "trace_s": ("queries over ", (" s",)),
    "warmup_queries": ("Warmup completed ", (" queries",)),
    "warmup_ms": ("queries over ", (" ms",)),
    "cv_percent": ("coefficient of variance = ", ("%",)),
    "built_s": ("Engine built in ", (" sec",)),
    "loaded_s": ("Engine loaded in ", (" sec",)),
    "deserialized_s": ("Engine deserialized in ", (" sec",)),
    "engine_mib": ("Created engine with size: ", (" MiB",)),
    "host_persistent_bytes": ("Total Host Persistent Memory: ", (" bytes", "")),
    "device_persistent_bytes": ("Total Device Persistent Memory: ", (" bytes", "")),
    "scratch_bytes": ("Scratch Memory: ", (" bytes", "")),
    "activation_bytes": ("Total Activation Memory: ", (" bytes", "")),
    "weights_bytes": ("Total Weights Memory: ", (" bytes",)),
    "context_mib": ("execution context with device memory size: ", (" MiB",)),
    "peak_cpu_mib": ("allocators: CPU ", (" MiB",)),
    "peak_gpu_mib": ("MiB, GPU ", (" MiB",)),
}
METRICS = {
    "latency": ("Latency: ", "Host Latency"),
    "end_to_end": ("End-to-End Host Latency: ", "Host Latency"),
    "enqueue": ("Enqueue Time: ", "Enqueue Time"),
    "h2d": ("H2D Latency: ", ""),
    "compute": ("GPU Compute Time: ", "GPU Compute"),
    "d2h": ("D2H Latency: ", ""),
}
STATISTICS = ("min", "max", "mean", "median", "percentile")


def number_at(text):
    """The number that a text begins with, and the text behind it."""
    for end in range(min(len(text), 30), 0, -1):
        if text[0].isdigit() and text[:end].isascii() and text[end - 1].isdigit():
            try:
                return float(text[:end]), text[end:]
            except ValueError:
                pass
    return None, text


def follows(line, before, value, units):
    """Whether the value and one of the units come after `before`; a unit of "" is the end of the line."""
    for piece in line.split(before)[1:]:
        found, rest = number_at(piece)
        if found == value and any(rest.startswith(unit) if unit else not rest.strip() for unit in units):
            return True
    return False


def message(line):
    """Without time and severity, and what stands in front of them or of a name."""
    line = line.lstrip(" \t")
    while line.startswith("[") and "]" in line:
        line = line[line.index("]") + 1 :].lstrip(" ")
    return line


def wrapped(lines, index):
    """A line and those that go on with its statistics."""
    end = index + 1
    while end < len(lines) and message(lines[end]).lower().startswith(STATISTICS):
        end += 1
    return " ".join([lines[index], *(message(line) for line in lines[index + 1 : end])])


def block(lines, index):
    """What stands below a heading of version 7."""
    end = index + 1
    while end < len(lines) and message(lines[end]).startswith((*STATISTICS, "throughput", "walltime")):
        end += 1
    return [message(line) for line in lines[index + 1 : end]]


def statistic_stands(lines, metric, name, value):
    head, heading = METRICS[metric]
    for index, line in enumerate(lines):
        if message(line).startswith(head) and in_line(wrapped(lines, index), name, value):
            return True
        if heading and message(line).strip() == heading and in_block(block(lines, index), metric, name, value):
            return True
    return False


def in_line(line, name, value):
    compact = line.replace(" ", "").lower()
    if not name.startswith("p"):
        return follows(compact, f"{name}=", value, ("ms",))
    return any(
        number_at(piece)[0] == float(name[1:]) and follows(piece, "%)=", value, ("ms",))
        for piece in compact.split("percentile(")[1:]
    )


def in_block(rows, metric, name, value):
    word = name if not name.startswith("p") else "percentile"
    before = "end to end " if metric == "end_to_end" else ": "
    chosen = [row for row in rows if row.startswith(word + ":")]
    at = [row for row in chosen if word == name or follows(row, "at ", float(name[1:]), ("%",))]
    return any(follows(row, before, value, (" ms",)) for row in at)


def layer_stands(lines, layer):
    wanted = [value for value in layer[1:] if value is not None]
    for line in lines:
        if layer.name in line:
            found = {number_at(word)[0] for word in line.split() if number_at(word)[1] == ""}
            if set(wanted) <= found:
                return True
    return False


def version_stands(text, version):
    major, minor, patch, build = version
    compact = f"{major}{minor:02}{patch:02}" if major >= 10 else f"{major}{minor}{patch:02}"
    spelt = (f"[TensorRT v{compact}]", f"[TensorRT v{major}.{minor}.{patch}]", f"version: {major}.{minor}.{patch}")
    return any(word in text for word in spelt) or build is not None


def check_log(text):
    log, lines = read_log(text), text.split("\n")
    for name, value in log.numbers.items():
        before, units = WORDS[name]
        assert any(number_follows(line, name, before, value, units) for line in lines), (name, value)
    for metric, statistics in log.metrics.items():
        for name, value in statistics.items():
            assert statistic_stands(lines, metric, name, value), (metric, name, value)
    for layer in log.layers:
        assert layer_stands(lines, layer), layer
        assert "(ms)" in text
    assert log.version is None or version_stands(text, log.version)
    assert all(f"{name}: {value}" in text for name, value in log.settings.items())
    assert all(words in text for failure in log.failures for words in failure.said)
    assert not log.verdict or f"&&&& {log.verdict}" in text
    for mode in ("build", "load", "time", "profile"):
        assert log.objection(mode) or log.verdict == "PASSED"


def number_follows(line, name, before, value, units):
    if name == "compute_s":
        return follows(line, "ompute Time: ", value, units) or follows(line, "ompute time: ", value, units)
    return follows(line, before, value, units)


def check_times(text):
    times = read_times(text)
    for field, values in (("computeMs", times.compute_ms), ("latencyMs", times.latency_ms), ("h2dMs", times.h2d_ms)):
        stand = {number_at(piece.lstrip(" :\n\t"))[0] for piece in text.split(f'"{field}"')[1:]}
        assert set(values.tolist()) <= stand


def check_profile(text):
    lines = text.split("\n")
    for layer in read_layer_times(text):
        line = next(line for line in lines if f'"{layer.name}"' in line)
        fields = zip(("timeMs", "averageMs", "medianMs", "percentage"), layer[1:], strict=True)
        same_name = [other for other in lines if f'"{layer.name}"' in other]
        for field, value in fields:
            if value is not None:
                compact = [other.replace(" ", "").replace("\t", "") for other in same_name]
                assert any(follows(other, f'"{field}":', value, (",", "}")) for other in compact), (line, field, value)


def check_layers(text):
    for layer in read_layers(text):
        assert layer.name in text or json.dumps(layer.name)[1:-1] in text or "\\" in text


def check_outputs(text):
    stand = set(text.replace(",", " ").replace("[", " ").replace("]", " ").split())
    for name, values in read_outputs(text).items():
        assert f'"{name}"' in text or "\\" in text
        finite = [value for value in values.ravel().tolist() if abs(value) < float("inf")]
        assert all(any(number(word) == value for word in stand) for value in finite), (name, finite)


def number(word):
    try:
        return float(word)
    except ValueError:
        return None


READERS = {"Outputs": check_outputs, "Times": check_times, "Profile": check_profile, "Layer": check_layers}


def reader(name):
    return next((check for kind, check in READERS.items() if name.startswith(f"export{kind}")), check_log)


def made_up():
    exports = {
        "exportTimes": texts.exported_times([1.5, 2.5, 1.25, 3.0] * 5, start=195.0),
        "exportProfile": texts.EXPORTED_PROFILE,
        "exportLayers": texts.EXPORTED_LAYERS,
        "exportOutputs": texts.EXPORTED_OUTPUTS,
        "exportLayerNames": texts.EXPORTED_NAMES,
    }
    return {**texts.LOGS, **exports}


def samples():
    found = {}
    for path in sorted([*FOLDER.glob("trt*"), *FOLDER.glob("export*")]):
        found[path.name] = path.read_text()
    return found


def variants(files, total):
    """Name and text; a file is broken anywhere, or where it ends: that is where the numbers of a long log are."""
    large = {name for name, text in files.items() if len(text) > LARGE}
    share = (total - FEWER * len(large)) // (len(files) - len(large)) + 1
    for seed, (name, text) in enumerate(files.items()):
        count = FEWER if name in large else share
        yield from ((name, mutant) for mutant in mutants([text], count - count // 2, seed))
        head, tail = text[:-5000], text[-5000:]
        yield from ((name, head + mutant) for mutant in mutants([tail], count // 2, seed))


@pytest.mark.parametrize(("which", "total"), [("made up", 1000), ("samples", 5000)])
def test_mutants_raise_only_own_errors_and_yield_only_numbers_that_stand_in_them(which, total, needs):
    needs(which == "made up" or FOLDER.is_dir(), "set KDEDGE_SAMPLES to a folder with trtexec_*.log and export*.json")
    files = made_up() if which == "made up" else samples()
    done = refused = 0
    for name, text in variants(files, total):
        done += 1
        try:
            reader(name)(text)
        except KdedgeError:
            refused += 1
    assert done >= total
    assert 0 < refused < done


def test_whole_files_pass_the_check():
    for name, text in made_up().items():
        reader(name)(text)


@pytest.mark.parametrize(
    ("text", "lie"),
    [
        (texts.RUN_10.replace("153.933 qps", "153.933 fps"), "throughput_qps"),
        (texts.RUN_10.replace("Engine built in 8.25 sec", "Engine built in 8.5 sec"), "built_s"),
    ],
)
def test_check_finds_a_number_that_is_not_there(text, lie, monkeypatch):
    whole = read_log(texts.RUN_10)
    monkeypatch.setitem(globals(), "read_log", lambda _: whole)
    with pytest.raises(AssertionError, match=lie):
        check_log(text)
