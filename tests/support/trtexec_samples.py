"""What stands in the samples of trtexec's output, read and copied by hand."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    version: str
    verdict: str
    modes: str
    """Of build, load, time and profile those whose promise the log keeps."""
    warnings: dict[str, int] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    numbers: str = ""
    metrics: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """min, max, mean, median and either p99 alone or p90, p95 and p99."""


NAMES = {5: ("min", "max", "mean", "median", "p99"), 7: ("min", "max", "mean", "median", "p90", "p95", "p99")}


def in_words(numbers):
    return {name: float(value) for name, _, value in (item.partition("=") for item in numbers.split())}


SAMPLES = {
    "trtexec_10.0.1_deserialize_FAILED.log": Sample("10.0.1", "FAILED", "", {}, ("not_an_engine", "deserialize")),
    "trtexec_10.10_disk_full_FAILED.log": Sample("10.10.0.31", "FAILED", "", {}, ("save",)),
    "trtexec_10.16.1_fp16_weaktyping_deprecated_verbose_TRIMMED.log": Sample(
        "10.16.1.11",
        "PASSED",
        "build load",
        {"weak_typing": 1},
        (),
        "host_persistent_bytes=21136 device_persistent_bytes=0 scratch_bytes=133120 activation_bytes=2007552 "
        "weights_bytes=6553216 peak_cpu_mib=6 peak_gpu_mib=37 engine_mib=6.42511 built_s=24.4854 "
        "deserialized_s=0.0362959",
    ),
    "trtexec_10.16.1_loadengine_cudagraph_spin_nodma_verbose_pass.log": Sample(
        "10.16.1.11",
        "PASSED",
        "load time",
        {},
        (),
        "deserialized_s=0.0245724 context_mib=1.91406 warmup_queries=4792 warmup_ms=200 queries=74692 "
        "trace_s=3.00005 throughput_qps=24896.9 walltime_s=3.00005 compute_s=2.89541",
        {
            "latency": (0.0383301, 0.0651855, 0.0387646, 0.0388184, 0.0388489, 0.0389404, 0.0390625),
            "enqueue": (0.00158691, 0.0428467, 0.00197413, 0.00195312, 0.00219727, 0.00219727, 0.00244141),
            "h2d": (0, 0, 0, 0, 0, 0, 0),
            "compute": (0.0383301, 0.0651855, 0.0387646, 0.0388184, 0.0388489, 0.0389404, 0.0390625),
            "d2h": (0, 0, 0, 0, 0, 0, 0),
        },
    ),
    "trtexec_10.16.1_plugin_enqueue_bound_warning_pass.log": Sample(
        "10.16.1.11",
        "PASSED",
        "build load time",
        {"enqueue_bound": 1, "unstable": 1, "shapes": 1},
        (),
        "host_persistent_bytes=192 device_persistent_bytes=0 scratch_bytes=0 activation_bytes=0 weights_bytes=0 "
        "peak_cpu_mib=0 peak_gpu_mib=0 engine_mib=0.00301743 built_s=0.643486 deserialized_s=0.00269487 "
        "context_mib=0 warmup_queries=5214 warmup_ms=200 queries=81948 trace_s=3.00006 throughput_qps=27315.5 "
        "walltime_s=3.00006 compute_s=0.439586 cv_percent=20.7287",
        {
            "latency": (0.0109863, 0.122803, 0.0130058, 0.0128174, 0.013916, 0.0144653, 0.0178223),
            "enqueue": (0.00415039, 0.114258, 0.00474599, 0.00463867, 0.00500488, 0.00524902, 0.00604248),
            "h2d": (0.00341797, 0.108276, 0.00421466, 0.00415039, 0.00463867, 0.00488281, 0.00537109),
            "compute": (0.00415039, 0.114502, 0.00536421, 0.00512695, 0.00610352, 0.00634766, 0.00775146),
            "d2h": (0.00292969, 0.0279541, 0.00342699, 0.00341797, 0.00366211, 0.0038147, 0.00415039),
        },
    ),
    "trtexec_10.16.1_x86_onnx_fp32_pass.log": Sample(
        "10.16.1.11",
        "PASSED",
        "build load time",
        {"unstable": 1, "shapes": 1},
        (),
        "host_persistent_bytes=18896 device_persistent_bytes=0 scratch_bytes=4608 activation_bytes=125440 "
        "weights_bytes=13100672 peak_cpu_mib=0 peak_gpu_mib=13 engine_mib=12.5744 built_s=8.09138 "
        "deserialized_s=0.00676279 context_mib=0.119629 warmup_queries=3057 warmup_ms=200 queries=46125 "
        "trace_s=3.00013 throughput_qps=15374.3 walltime_s=3.00013 compute_s=1.6586 cv_percent=6.58751",
        {
            "latency": (0.0410156, 0.14917, 0.0441053, 0.0440674, 0.0450439, 0.0458984, 0.0512695),
            "enqueue": (0.0247803, 0.137939, 0.0271685, 0.0267334, 0.0283203, 0.0299072, 0.0357666),
            "h2d": (0.00341797, 0.108398, 0.00395853, 0.00378418, 0.00439453, 0.00488281, 0.00537109),
            "compute": (0.0331421, 0.140381, 0.0359588, 0.0361328, 0.0368652, 0.0371094, 0.041748),
            "d2h": (0.00390625, 0.0341797, 0.00418773, 0.00415039, 0.00421143, 0.00427246, 0.00512695),
        },
    ),
    "trtexec_10.3_jetson_resnet50_fp16_nodatatransfers_summary.log": Sample(
        "10.3.0",
        "PASSED",
        "time",
        {},
        (),
        "throughput_qps=318.007 walltime_s=3.00622 compute_s=3.00249",
        {
            "latency": (3.12671, 3.15479, 3.14068, 3.14062, 3.14587, 3.14771, 3.15039),
            "enqueue": (0.844238, 2.05505, 0.887139, 0.872437, 0.932861, 0.953735, 1.0658),
            "h2d": (0, 0, 0, 0, 0, 0, 0),
            "compute": (3.12671, 3.15479, 3.14068, 3.14062, 3.14587, 3.14771, 3.15039),
            "d2h": (0, 0, 0, 0, 0, 0, 0),
        },
    ),
    "trtexec_10.3_onnx_parse_FAILED.log": Sample("10.3.0", "FAILED", "", {}, ("parser", "build")),
    "trtexec_10.3_orin_nx_loadengine_cudagraph_HEAD_ONLY.log": Sample("10.3.0", "", "", {}, ()),
    "trtexec_10.3_unknown_option_FAILED.log": Sample("10.3.0", "FAILED", "", {}, ("option",)),
    "trtexec_10.9_rtx3070_resnet50_pass_TRIMMED.log": Sample(
        "10.9.0.34",
        "PASSED",
        "build load time",
        {"unstable": 1},
        (),
        "host_persistent_bytes=353104 device_persistent_bytes=6656 scratch_bytes=4096 activation_bytes=8228864 "
        "weights_bytes=103529216 peak_cpu_mib=9 peak_gpu_mib=105 built_s=10.7204 engine_mib=101.811 "
        "deserialized_s=0.10331 context_mib=7.84766 warmup_queries=135 warmup_ms=200 queries=2077 trace_s=3.0039 "
        "throughput_qps=691.435 walltime_s=3.0039 compute_s=2.9983 cv_percent=13.1794",
        {
            "latency": (1.4209, 3.047, 1.48372, 1.43823, 1.45624, 1.71796, 2.61597),
            "enqueue": (0.208801, 0.461304, 0.263621, 0.259033, 0.293823, 0.311768, 0.402832),
            "h2d": (0.0258789, 0.0687256, 0.0362824, 0.0361328, 0.0378418, 0.0385742, 0.0616455),
            "compute": (1.38855, 3.00439, 1.44357, 1.39775, 1.40308, 1.67834, 2.57642),
            "d2h": (0.00286865, 0.00561523, 0.00387057, 0.00366211, 0.00488281, 0.00500488, 0.00537109),
        },
    ),
    "trtexec_11.1_paraphrased_THIRD_PARTY_NOT_RAW.txt": Sample(
        "11.1.0.106",
        "PASSED",
        "build",
        {},
        (),
        "engine_mib=395.96 built_s=13.87 throughput_qps=85.66",
        {"latency": (11.36, 14.62, 11.67, 11.43, 12.21, 12.49, 13.62)},
    ),
    "trtexec_8.2_xavier_nx_end_to_end_host_latency.log": Sample(
        "None",
        "",
        "",
        {},
        (),
        "throughput_qps=27207 walltime_s=3.00158 compute_s=2.88214",
        {
            "latency": (0.564209, 0.593018, 0.573891, 0.572998, 0.587769),
            "end_to_end": (0.574707, 0.606201, 0.586663, 0.585938, 0.601685),
            "enqueue": (0.126709, 0.282104, 0.140747, 0.134277, 0.182129),
            "h2d": (0.00610352, 0.00793457, 0.00656457, 0.0065918, 0.00708008),
            "compute": (0.554932, 0.58374, 0.564682, 0.564087, 0.578552),
            "d2h": (0.00219727, 0.00341797, 0.00265072, 0.00268555, 0.00317383),
        },
    ),
    "trtexec_8.3_orin_dla_build_FAILED_1970.log": Sample("None", "", "", {}, ("build",)),
    "trtexec_8.5.10_drive_orin_best_cudagraph_profile_TRIMMED.log": Sample(
        "8.5.10",
        "PASSED",
        "build load time profile",
        {"unstable": 1, "fp16_weights": 1, "no_layer_times": 1},
        (),
        "activation_bytes=32256 host_persistent_bytes=10016 device_persistent_bytes=0 scratch_bytes=0 "
        "peak_cpu_mib=0 peak_gpu_mib=10 built_s=12.3251 deserialized_s=0.00508637 warmup_queries=10498 "
        "warmup_ms=200 queries=158298 trace_s=3.00004 throughput_qps=52765.3 walltime_s=3.00004 compute_s=2.84043 "
        "cv_percent=1.45766",
        {
            "latency": (0.0175781, 0.0403442, 0.0179435, 0.0179443, 0.0181274, 0.0181885, 0.0183105),
            "enqueue": (0.00292969, 0.0242615, 0.00361886, 0.00363159, 0.00390625, 0.00396729, 0.00439453),
            "h2d": (0, 0, 0, 0, 0, 0, 0),
            "compute": (0.0175781, 0.0403442, 0.0179435, 0.0179443, 0.0181274, 0.0181885, 0.0183105),
            "d2h": (0, 0, 0, 0, 0, 0, 0),
        },
    ),
    "trtexec_8.5.10_x86_plugin_format_FAILED.log": Sample("8.5.10", "FAILED", "", {}, ("build",)),
    "trtexec_8.5.10_x86_plugin_h2d_d2h_bound.log": Sample(
        "8.5.10",
        "PASSED",
        "build load time",
        {"h2d_bound": 1, "d2h_bound": 1, "unstable": 1},
        (),
        "activation_bytes=0 host_persistent_bytes=112 device_persistent_bytes=0 scratch_bytes=0 peak_cpu_mib=0 "
        "peak_gpu_mib=0 built_s=62.4793 deserialized_s=0.0160677 warmup_queries=4 warmup_ms=200 queries=225 "
        "trace_s=3.00693 throughput_qps=74.8273 walltime_s=3.00693 compute_s=0.103204 cv_percent=3.08398",
        {
            "latency": (12.8588, 12.9963, 12.9076, 12.908, 12.9387, 12.9518, 12.9889),
            "enqueue": (0.0297241, 0.497314, 0.0838908, 0.060791, 0.118408, 0.253174, 0.427612),
            "h2d": (6.20386, 6.30634, 6.22974, 6.22552, 6.25354, 6.26904, 6.29822),
            "compute": (0.435181, 0.476135, 0.458685, 0.453613, 0.473145, 0.474121, 0.474121),
            "d2h": (6.21265, 6.25146, 6.21916, 6.21509, 6.23511, 6.24438, 6.24841),
        },
    ),
    "trtexec_8.5.10_x86_qat_int8_dumpprofile_TRIMMED.log": Sample(
        "8.5.10",
        "PASSED",
        "build load time profile",
        {"unstable": 1, "no_layer_times": 1},
        (),
        "activation_bytes=602112 host_persistent_bytes=57728 device_persistent_bytes=0 scratch_bytes=0 "
        "peak_cpu_mib=59 peak_gpu_mib=13 built_s=53.4699 deserialized_s=0.0102685 warmup_queries=1257 "
        "warmup_ms=200 queries=21990 trace_s=3.00022 throughput_qps=7329.45 walltime_s=3.00022 compute_s=2.96537 "
        "cv_percent=7.69863",
        {
            "latency": (0.133057, 0.690186, 0.134851, 0.134155, 0.135132, 0.135193, 0.135254),
            "enqueue": (0.00256348, 0.648438, 0.00444714, 0.00357056, 0.00488281, 0.00634766, 0.0244141),
            "h2d": (0, 0, 0, 0, 0, 0, 0),
            "compute": (0.133057, 0.690186, 0.134851, 0.134155, 0.135132, 0.135193, 0.135254),
            "d2h": (0, 0, 0, 0, 0, 0, 0),
        },
    ),
    "trtexec_8.5.2_xavier_nx_dumpprofile_layer_first_TRIMMED.log": Sample(
        "8.5.2", "PASSED", "load profile", {}, (), "loaded_s=0.0204752 deserialized_s=1.75066"
    ),
    "trtexec_8.x_orin_nx_8gb_tactic_oom_warnings.log": Sample("None", "", "", {"tactic_memory": 2}, ()),
    "trtexec_orin_dla_2s_latency_10_iters.log": Sample(
        "None",
        "",
        "",
        {},
        (),
        "throughput_qps=0.406047 walltime_s=24.6277 compute_s=22.3916",
        {
            "latency": (2240.97, 2241.41, 2241.14, 2241.13, 2241.2, 2241.41, 2241.41),
            "enqueue": (0.967136, 1.2666, 1.14105, 1.13232, 1.24414, 1.2666, 1.2666),
            "h2d": (1.78027, 1.9176, 1.80922, 1.80225, 1.80664, 1.9176, 1.9176),
            "compute": (2239.08, 2239.32, 2239.16, 2239.15, 2239.22, 2239.32, 2239.32),
            "d2h": (0.101562, 0.177734, 0.16792, 0.174805, 0.177734, 0.177734, 0.177734),
        },
    ),
    "trtexec_orin_enqueue_equals_gpu_time.log": Sample(
        "None",
        "",
        "",
        {},
        (),
        "throughput_qps=12.9581",
        {
            "latency": (75.9753, 76.4476, 76.3344, 76.3436, 76.4209, 76.446, 76.4476),
            "enqueue": (75.5111, 76.2788, 75.8652, 75.8631, 76.0249, 76.0399, 76.2788),
        },
    ),
}
