"""Texts and files as trtexec writes them, with made-up numbers: one for each style that it has had."""


def stamped(text: str) -> str:
    """With a time in front of each line that has a severity."""
    return "".join(f"[03/14/2025-09:26:53] {line}" if line.startswith("[") else line for line in text.splitlines(True))


HEAD_10 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v101002] [b7] # trtexec --onnx=net.onnx --saveEngine=net.engine
[I] === Build Options ===
[I] Precision: FP32+FP16
[I] LayerPrecisions:
[I] === Inference Options ===
[I] Batch: Explicit
[I] Inference Streams: 1
[I] ExposeDMA: Disabled
[I] Data transfers: Enabled
[I] Spin-wait: Disabled
[I] CUDA Graph: Disabled
[I] TensorRT version: 10.10.2
[W] Dynamic dimensions required for input: x, but no shapes were provided. Automatically overriding shape to: 1x3
[I] [TRT] Total Host Persistent Memory: 704 bytes
[I] [TRT] Total Device Persistent Memory: 1024 bytes
[I] [TRT] Max Scratch Memory: 4608 bytes
[I] [TRT] Total Activation Memory: 125440 bytes
[I] [TRT] Total Weights Memory: 65536 bytes
[I] [TRT] [MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 3 MiB, GPU 11 MiB
[I] Created engine with size: 0.0625 MiB
[I] Engine built in 8.25 sec.
[I] [TRT] Loaded engine size: 0 MiB
[I] Engine deserialized in 0.0125 sec.
[I] Created execution context with device memory size: 0.125 MiB
[I] Starting inference
"""
SUMMARY_10 = """\
[I] Warmup completed 31 queries over 200 ms
[I] Timing trace has 462 queries over 3.0013 s
[I] === Trace details ===
[I] Average on 10 runs - GPU latency: 6.31 ms - Host latency: 6.62 ms (enqueue 5.71 ms)
[I] ... Omitting 42125 lines
[I] === Performance summary ===
[I] Throughput: 153.933 qps
[I] Latency: min = 6.41 ms, max = 7.5 ms, mean = 6.62 ms, median = 6.6 ms, percentile(90%) = 6.7 ms, \
percentile(95%) = 6.8 ms, percentile(99%) = 7.25 ms
[I] Enqueue Time: min = 5.5 ms, max = 6.1 ms, mean = 5.7 ms, median = 5.6 ms, percentile(90%) = 5.8 ms, \
percentile(95%) = 5.9 ms, percentile(99%) = 6 ms
[I] H2D Latency: min = 0.2 ms, max = 0.5 ms, mean = 0.25 ms, median = 0.24 ms, percentile(90%) = 0.3 ms, \
percentile(95%) = 0.35 ms, percentile(99%) = 0.4 ms
[I] GPU Compute Time: min = 6.1 ms, max = 7.1 ms, mean = 6.31 ms, median = 6.3 ms, percentile(90%) = 6.4 ms, \
percentile(95%) = 6.5 ms, percentile(99%) = 6.9 ms
[I] D2H Latency: min = 0.05 ms, max = 0.1 ms, mean = 0.06 ms, median = 0.055 ms, percentile(90%) = 0.07 ms, \
percentile(95%) = 0.08 ms, percentile(99%) = 0.09 ms
[I] Total Host Walltime: 3.0013 s
[I] Total GPU Compute Time: 2.91522 s
[W] * Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized.
[W]   If not already in use, --useCudaGraph (utilize CUDA graphs where possible) may increase the throughput.
[W] * GPU compute time is unstable, with coefficient of variance = 4.125%.
[I] Explanations of the performance metrics are printed in the verbose logs.
[V] GPU Compute Time: the GPU latency to execute the kernels for a query.
[V] Latency: the summation of H2D Latency, GPU Compute Time, and D2H Latency.
[I]
"""
PASSED_10 = "&&&& PASSED TensorRT.trtexec [TensorRT v101002] [b7] # trtexec --onnx=net.onnx --saveEngine=net.engine\n"
TABLE_10 = """\
[I] === Profile (12 iterations ) ===
[I]    Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer
[I]       36.00       3.0000       2.9500      75.0   Conv_0 + (Unnamed Layer* 4) [Shuffle], 12.50 0.1
[I]       12.00       1.0000       1.0500      25.0   {ForeignNode[a...b]}
[I]       48.00       4.0000       4.0000     100.0   Total
[I]
"""
RUN_10 = stamped(HEAD_10 + SUMMARY_10) + PASSED_10
PROFILED_10 = stamped(HEAD_10 + TABLE_10) + PASSED_10
PROFILED_8 = stamped("""\
&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=net.onnx --dumpProfile
[I] [TRT] Total Activation Memory: 7957761536
[I] [TRT] Total Host Persistent Memory: 10016
[I] [TRT] Total Device Persistent Memory: 0
[I] [TRT] Total Scratch Memory: 256
[I] [TRT] Total Activation Memory: 32256
[I] Engine built in 12.5 sec.
[I] Engine loaded in 0.0205 sec.
[I] Engine deserialized in 1.75 sec.
[I] === Profile (329 iterations ) ===
[I]                           Layer   Time (ms)   Avg. Time (ms)   Median Time (ms)   Time %
[I]   Conv 1, {a [b] 2.5} 77.00 0.1       23.73           0.0721             0.0636     25.0
[I]                    Transpose__8       71.19           0.2163             0.2160     75.0
[I]                           Total       94.92           0.2884             0.2796    100.0
[I]
&&&& PASSED TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=net.onnx --dumpProfile
""")
RUN_8_IMPLICIT = stamped("""\
&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec --deploy=net.prototxt --batch=4
[I] Batch: 4
[I] === Performance summary ===
[I] Throughput: 2000 qps
[I] Latency: min = 1.5 ms, max = 3 ms, mean = 2 ms, median = 1.9 ms, percentile(99%) = 2.9 ms
[I] End-to-End Host Latency: min = 2.5 ms, max = 4 ms, mean = 3 ms, median = 2.9 ms, percentile(99%) = 3.9 ms
[I] GPU Compute Time: min = 1 ms, max = 2 ms, mean = 1.5 ms, median = 1.4 ms, percentile(99%) = 1.9 ms
[I] H2D Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(99%) = 0 ms
[I] D2H Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(99%) = 0 ms
&&&& PASSED TensorRT.trtexec [TensorRT v8201] # trtexec --deploy=net.prototxt --batch=4
""")
RUN_7 = stamped("""\
[I] Timing trace has 0 queries over 3.16903 s
[I] Host Latency
[I] min: 4.5 ms (end to end 108.25 ms)
[I] max: 7.25 ms (end to end 110.75 ms)
[I] mean: 5.5 ms (end to end 109.5 ms)
[I] median: 5.25 ms (end to end 109.25 ms)
[I] percentile: 7 ms at 99% (end to end 110.5 ms at 99%)
[I] throughput: 0 qps
[I] walltime: 3.16903 s
[I] Enqueue Time
[I] min: 0.75 ms
[I] max: 1.25 ms
[I] median: 0.875 ms
[I] GPU Compute
[I] min: 4.25 ms
[I] max: 6.5 ms
[I] mean: 4.75 ms
[I] median: 4.625 ms
[I] percentile: 6.25 ms at 99%
[I] total compute time: 3.125 s
&&&& PASSED TensorRT.trtexec # trtexec --onnx=net.onnx
""")
FAILED = "&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=net.onnx --saveEngine=net.engine\n"
UNKNOWN_OPTION = stamped("[E] Unknown option: --workspace 2048\n[E] Unknown option: --safe2 \n") + FAILED
PARSE_FAILED = (
    stamped('[E] [TRT] ModelImporter.cpp:949: While parsing node number 3 [Det -> "y"]:\n')
    + 'input: "x"\nop_type: "Det"\n\n'
    + stamped("[E] [TRT] ModelImporter.cpp:954: ERROR: ModelImporter.cpp:195 In function parseNode:\n")
    + "[8] No importer registered for op: Det\nPlugin not found\n"
    + stamped("[E] Failed to parse onnx file\n[E] Engine set up failed\n")
    + FAILED
)
DISK_FULL = stamped("[E] Saving engine to file failed.\n[E] Engine set up failed\n") + FAILED
OTHER_GPU = (
    stamped(
        "[E] 6: The engine plan file is generated on an incompatible device, "
        "expecting compute 8.7 got compute 7.2, please rebuild.\n[E] Engine deserialization failed\n"
    )
    + FAILED
)
LOGS = {
    "run_10": RUN_10,
    "profiled_10": PROFILED_10,
    "profiled_8": PROFILED_8,
    "run_8_implicit": RUN_8_IMPLICIT,
    "run_7": RUN_7,
    "unknown_option": UNKNOWN_OPTION,
    "parse_failed": PARSE_FAILED,
    "disk_full": DISK_FULL,
    "other_gpu": OTHER_GPU,
}


def exported_times(compute: list[float], start: float = 200.0, copy: float = 0.25) -> str:
    """--exportTimes of queries one after another, each with a copy before and after."""
    lines, now = [], start
    for time in compute:
        begin, end = now + copy, now + copy + time
        spans = {"startEnqMs": now, "endEnqMs": now, "startH2dMs": now, "endH2dMs": begin, "startComputeMs": begin}
        spans |= {"endComputeMs": end, "startD2hMs": end, "endD2hMs": end + copy, "h2dMs": copy, "computeMs": time}
        spans |= {"d2hMs": copy, "latencyMs": time + 2 * copy}
        lines.append("{ " + ", ".join(f'"{name}" : {value:g}' for name, value in spans.items()) + " }\n")
        now = end + copy
    return "[\n  " + ", ".join(lines) + "]\n"


EXPORTED_PROFILE = """\
[
  { "count" : 12 }
, { "name" : "Conv_0 "quoted\\", "timeMs" : 36, "averageMs" : 3, "medianMs" : 2.95, "percentage" : 75 }
, { "name" : "Relu_1", "timeMs" : 12, "averageMs" : 1, "medianMs" : 1.05, "percentage" : 2.5e+01 }
]
"""
EXPORTED_LAYERS = """\
{"Layers": [{
  "Name": "conv + relu",
  "LayerType": "CaskConvolution",
  "Inputs": [{"Name": "x", "Dimensions": [1,3], "Format": "Row major linear", "Datatype": "Half"}],
  "Outputs": [{"Name": "y", "Dimensions": [1,2], "Format": "Row major linear", "Datatype": "Half"}],
  "Metadata": "[ONNX Layer: /net/conv [0]]\\u001e[ONNX Layer: /net/relu]\\u001f[ONNX Layer: /net/add]"
},{
  "Name": "Reformat 1", "LayerType": "Reformat",
  "Inputs": [{"Name": "y", "Format/Datatype": "Float"}], "Outputs": [], "Metadata": ""
}],
"I/O Tensors": [{"Name": "x"}, {"Name": "y"}]}
"""
EXPORTED_OUTPUTS = """\
[
  { "name" : "logits"
  , "dimensions" : "2x3"
  , "values" : [ 1.25, -0.5, 1.5e-05, nan, -inf, 7 ]
  }
, { "name" : "count"
  , "dimensions" : ""
  , "values" : [ 3 ]
  }
]
"""
EXPORTED_NAMES = '{"Layers": ["Conv_0 + Relu_1", "Gemm_2"],\n"Bindings": ["x"\n,"y"\n]}\n'
