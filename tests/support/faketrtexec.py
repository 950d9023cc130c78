"""A program that behaves like trtexec of a version as far as its options, text, exports and ways to fail go."""

import hashlib
import json
import sys
from pathlib import Path
from statistics import mean, median

import trtexec_texts as texts

BUILDING = ["--onnx", "--saveEngine", "--memPoolSize", "--profilingVerbosity", "--noTF32", "--timingCacheFile"]
BUILDING += ["--minShapes", "--optShapes", "--maxShapes", "--useDLACore", "--allowGPUFallback", "--refit"]
RUNNING = ["--loadEngine", "--shapes", "--duration", "--iterations", "--warmUp", "--sleepTime", "--idleTime"]
RUNNING += ["--exposeDMA", "--noDataTransfers", "--useSpinWait", "--useCudaGraph", "--loadInputs", "--exportOutput"]
REPORTING = ["--avgRuns", "--percentile", "--exportTimes", "--exportProfile", "--exportLayerInfo", "--dumpProfile"]
COMMON = [*BUILDING, *RUNNING, *REPORTING]
NEWER = ["--skipInference", "--stronglyTyped", "--infStreams", "--versionCompatible", "--builderOptimizationLevel"]
NEWER += ["--hardwareCompatibilityLevel"]
OPTIONS = {
    "v8502": [*COMMON, "--fp16", "--int8", "--buildOnly", "--streams"],
    "v100300": [*COMMON, "--fp16", "--int8", *NEWER],
    "v110100": [*COMMON, *NEWER, "--includeDataTransfers", "--noSpinWait", "--noCudaGraph"],
}
PROGRAM = """\
#!{python} -IS
import hashlib, json, os, pathlib, signal, struct, sys
banner, known, fault, texts, told = json.loads(pathlib.Path(__file__ + ".json").read_text())
options = dict((word + "=").split("=")[:2] for word in sys.argv[1:])
def say(text):
    print(text, flush=True)
def end(word):
    say("&&&& " + word + " TensorRT.trtexec [TensorRT " + banner + "] # trtexec " + " ".join(sys.argv[1:]))
    sys.exit(word != "PASSED")
end_of_engine = b"0123456789abcdef" * 4096  # 0.0625 MiB
say("&&&& RUNNING TensorRT.trtexec [TensorRT " + banner + "] # trtexec " + " ".join(sys.argv[1:]))
if "--help" in options:
    say("\\n".join("  " + name + "=spec   what it does" for name in known))
    sys.exit(0)
pathlib.Path(__file__).with_name("seen").write_text(json.dumps(sys.argv[1:]))
unknown = [name for name in options if name not in known]
for name in unknown:
    say("[E] Unknown option: " + name + " " + options[name])
if unknown:
    end("FAILED")
say('[I]   Device 0: "GPU" UUID: GPU-31e9692b-62b7-2d62-f0b1-f4195b568ac7 of ' + str(pathlib.Path.home()))
if "--saveEngine" in options:
    target = pathlib.Path(options["--saveEngine"])
    if fault == "hang":
        target.write_bytes(end_of_engine[:100])
        with open(pathlib.Path(__file__).with_name("started"), "w") as file:
            file.write(str(os.getpid()))
        signal.pause()
    if fault == "disk full":
        target.write_bytes(end_of_engine[:100])
        say("[E] Saving engine to file failed.\\n[E] Engine set up failed")
        end("FAILED")
    if fault == "refused":
        say(texts["refused"])
        sys.exit(1)
    if fault != "no engine":
        target.write_bytes(end_of_engine[:100] if fault == "cut" else end_of_engine)
    say("[I] Created engine with size: 0.0625 MiB\\n[I] Engine built in 8.25 sec.")
    pathlib.Path(options["--exportLayerInfo"]).write_text(texts["layers"])
    if "--timingCacheFile" in options:
        with open(options["--timingCacheFile"], "a") as file:
            file.write("timed ")
    if "--useDLACore" in options and fault != "no dla":
        say("[I] [TRT] [DlaLayer] {{ForeignNode[a...b]}}\\n[I] [TRT] [GpuLayer] SHUFFLE: c")
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    end("PASSED")
if fault == "other gpu":
    say(texts["other gpu"])
    sys.exit(1)
say("[I] Engine deserialized in 0.0125 sec.")
say("[I] Starting inference")
eleven = banner.startswith("v11")
on = {{"Data transfers": "--includeDataTransfers" in options if eleven else "--noDataTransfers" not in options,
      "Spin-wait": "--noSpinWait" not in options if eleven else "--useSpinWait" in options,
      "CUDA Graph": "--noCudaGraph" not in options if eleven else "--useCudaGraph" in options,
      "ExposeDMA": "--exposeDMA" in options}}
if fault == "other switches":
    on["CUDA Graph"] = not on["CUDA Graph"]
for name, value in on.items():
    say("[I] " + name + ": " + ("Enabled" if value else "Disabled"))
if "--exportTimes" in options:
    if fault != "no times":
        kind = "long times" if options["--warmUp"] == "0" else "other times" if fault == "other times" else "times"
        pathlib.Path(options["--exportTimes"]).write_text(texts[kind])
    say(texts["long summary" if options["--warmUp"] == "0" else "summary"])
if "--exportOutput" in options:
    given = pathlib.Path(options["--loadInputs"].partition(":")[2]).read_bytes()
    size = told["bytes"]
    rows = len(given) // size
    if told["answers"]:
        found = [told["answers"][hashlib.sha256(given[i * size:(i + 1) * size]).hexdigest()] for i in range(rows)]
    else:
        values = struct.unpack("<%df" % (3 * rows), given)
        found = [[sum(values[3 * i:3 * i + 3]), -sum(values[3 * i:3 * i + 3])] for i in range(rows)]
    text = ", ".join("%g" % value for answer in found for value in answer)
    if fault == "not a number":
        text = text.replace(text.split(", ")[0], "-nan", 1)
    if fault == "cut answer":
        text = text.rpartition(", ")[0]
    answer = '[\\n  {{ "name" : "%s"\\n  , "dimensions" : "%dx%d"\\n  , "values" : [ %s ]\\n  }}\\n]\\n'
    answer %= (told["output"], rows, len(found[0]), text)
    pathlib.Path(options["--exportOutput"]).write_text(answer)
    say(texts["summary"])
if "--exportProfile" in options:
    pathlib.Path(options["--exportProfile"]).write_text(texts["profile"])
    pathlib.Path(options["--exportLayerInfo"]).write_text(texts["layers"])
    say(texts["table"])
end("PASSED")
"""
TIMES = [6.0, 6.5, 6.25, 7.0]
"""Compute times that the program exports, in milliseconds."""
SETTLING = [29.5] + [9.5] * 10 + [5.5] * 34 + [5.5, 5.75] * 50
"""Those of a run without a warm-up of its own."""


def summary(times: list[float]) -> str:
    """What the program prints of them."""
    shown = (
        f"min = {min(times):g} ms, max = {max(times):g} ms, mean = {mean(times):g} ms, median = {median(times):g} ms"
    )
    return f"""\
[I] Timing trace has {len(times)} queries over {sum(times) / 1000:g} s
[I] === Performance summary ===
[I] Throughput: {1000 * len(times) / sum(times):g} qps
[I] GPU Compute Time: {shown}, median = {median(times):g} ms, percentile(99%) = {max(times):g} ms"""


def install(
    folder: Path,
    version: str = "v100300",
    fault: str = "",
    output: str = "y",
    answers: dict[bytes, list[float]] | None = None,
) -> Path:
    """Its engine answers each of the given rows of input bytes; else rows of three floats with their sum and minus it.

    Args:
        output: what its one output is called.
    """
    said = {
        "times": texts.exported_times(TIMES),
        "other times": texts.exported_times(TIMES[:3]),
        "profile": texts.EXPORTED_PROFILE,
        "layers": texts.EXPORTED_LAYERS,
        "summary": summary(TIMES),
        "long times": texts.exported_times(SETTLING, start=0.0),
        "long summary": summary(SETTLING),
        "table": texts.TABLE_10,
        "refused": texts.PARSE_FAILED,
        "other gpu": texts.OTHER_GPU,
    }
    path = folder / "trtexec"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    known = {hashlib.sha256(row).hexdigest(): answer for row, answer in (answers or {}).items()}
    told = {"output": output, "answers": known, "bytes": len(next(iter(answers))) if answers else 12}
    (folder / "trtexec.json").write_text(json.dumps([version, OPTIONS.get(version, COMMON), fault, said, told]))
    return path
