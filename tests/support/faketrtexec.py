"""A program that behaves like trtexec of a version as far as its options, text, exports and ways to fail go."""

import json
import sys
from pathlib import Path

import trtexec_texts as texts

BUILDING = ["--onnx", "--saveEngine", "--memPoolSize", "--profilingVerbosity", "--noTF32", "--timingCacheFile"]
BUILDING += ["--minShapes", "--optShapes", "--maxShapes", "--useDLACore", "--allowGPUFallback"]
RUNNING = ["--loadEngine", "--shapes", "--duration", "--iterations", "--warmUp", "--sleepTime", "--idleTime"]
RUNNING += ["--exposeDMA", "--noDataTransfers", "--useSpinWait", "--useCudaGraph"]
REPORTING = ["--avgRuns", "--percentile", "--exportTimes", "--exportProfile", "--exportLayerInfo", "--dumpProfile"]
COMMON = [*BUILDING, *RUNNING, *REPORTING]
NEWER = ["--skipInference", "--stronglyTyped", "--infStreams"]
OPTIONS = {
    "v8502": [*COMMON, "--fp16", "--int8", "--buildOnly", "--streams"],
    "v100300": [*COMMON, "--fp16", "--int8", *NEWER],
    "v110100": [*COMMON, *NEWER, "--includeDataTransfers", "--noSpinWait", "--noCudaGraph"],
}
PROGRAM = """\
#!{python} -IS
import json, os, pathlib, signal, sys
banner, known, fault, texts = json.loads(pathlib.Path(__file__ + ".json").read_text())
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
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    end("PASSED")
if fault == "other gpu":
    say(texts["other gpu"])
    sys.exit(1)
say("[I] Engine deserialized in 0.0125 sec.")
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
        pathlib.Path(options["--exportTimes"]).write_text(texts["other times" if fault == "other times" else "times"])
    say(texts["summary"])
if "--exportProfile" in options:
    pathlib.Path(options["--exportProfile"]).write_text(texts["profile"])
    pathlib.Path(options["--exportLayerInfo"]).write_text(texts["layers"])
    say(texts["table"])
end("PASSED")
"""
TIMES = [6.0, 6.5, 6.25, 7.0]
"""Compute times that the program exports, in milliseconds."""
SUMMARY = """\
[I] Timing trace has 4 queries over 0.02775 s
[I] === Performance summary ===
[I] Throughput: 144.144 qps
[I] GPU Compute Time: min = 6 ms, max = 7 ms, mean = 6.4375 ms, median = 6.375 ms, percentile(99%) = 7 ms"""


def install(folder: Path, version: str = "v100300", fault: str = "") -> Path:
    said = {
        "times": texts.exported_times(TIMES),
        "other times": texts.exported_times(TIMES[:3]),
        "profile": texts.EXPORTED_PROFILE,
        "layers": texts.EXPORTED_LAYERS,
        "summary": SUMMARY,
        "table": texts.TABLE_10,
        "refused": texts.PARSE_FAILED,
        "other gpu": texts.OTHER_GPU,
    }
    path = folder / "trtexec"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    (folder / "trtexec.json").write_text(json.dumps([version, OPTIONS.get(version, COMMON), fault, said]))
    return path
