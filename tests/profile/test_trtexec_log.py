"""trtexec's text in every style that it has had, with made-up numbers."""

import pytest
import trtexec_texts as texts
from trtexec_samples import NAMES, in_words

from kdedge.profile.trtexec_log import WARNINGS, read_log, read_version
from kdedge.profile.trtexec_numbers import LayerTime

MODES = ("build", "load", "time", "profile")


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec", "8.5.2"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8510] # trtexec", "8.5.10"),
        ("&&&& PASSED TensorRT.trtexec [TensorRT v8412] # trtexec", "8.4.12"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100001] # trtexec", "10.0.1"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b11] # trtexec", "10.16.1.11"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b106]", "11.1.0.106"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8.6.1] # trtexec", "8.6.1"),
        ("&&&& RUNNING TensorRT.trtexec # trtexec\n[I] TensorRT version: 7.2.3\n", "7.2.3"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v10160] # trtexec", "None"),
        ("[TensorRT v8502]", "None"),
    ],
)
def test_version_is_read_from_the_banner_by_its_number_of_digits(banner, version):
    assert str(read_version(banner)) == version


def test_run_has_every_number_of_its_summary():
    log = read_log(texts.RUN_10)
    assert log.numbers == in_words(
        "host_persistent_bytes=704 device_persistent_bytes=1024 scratch_bytes=4608 activation_bytes=125440 "
        "weights_bytes=65536 peak_cpu_mib=3 peak_gpu_mib=11 engine_mib=0.0625 built_s=8.25 deserialized_s=0.0125 "
        "context_mib=0.125 warmup_queries=31 warmup_ms=200 queries=462 trace_s=3.0013 throughput_qps=153.933 "
        "walltime_s=3.0013 compute_s=2.91522 cv_percent=4.125"
    )
    assert log.metrics["latency"] == dict(zip(NAMES[7], (6.41, 7.5, 6.62, 6.6, 6.7, 6.8, 7.25), strict=True))
    assert log.metrics["compute"] == dict(zip(NAMES[7], (6.1, 7.1, 6.31, 6.3, 6.4, 6.5, 6.9), strict=True))
    assert list(log.metrics) == ["latency", "enqueue", "h2d", "compute", "d2h"]
    assert log.warnings == {"enqueue_bound": 1, "unstable": 1, "shapes": 1}
    assert all(WARNINGS[kind][1] for kind in log.warnings)
    assert [log.objection(mode) for mode in ("build", "load", "time")] == ["", "", ""]


def test_blocks_of_version_7_become_the_same_metrics():
    log = read_log(texts.RUN_7)
    assert log.metrics == {
        "latency": dict(zip(NAMES[5], (4.5, 7.25, 5.5, 5.25, 7), strict=True)),
        "end_to_end": dict(zip(NAMES[5], (108.25, 110.75, 109.5, 109.25, 110.5), strict=True)),
        "enqueue": {"min": 0.75, "max": 1.25, "median": 0.875},
        "compute": dict(zip(NAMES[5], (4.25, 6.5, 4.75, 4.625, 6.25), strict=True)),
    }
    assert log.numbers == {"trace_s": 3.16903, "walltime_s": 3.16903, "compute_s": 3.125}  # neither 0 queries nor 0 qps
    assert (log.version, log.verdict) == (None, "PASSED")


def test_implicit_batch_counts_as_one_query():
    log = read_log(texts.RUN_8_IMPLICIT)
    assert (log.numbers["throughput_qps"], log.queries_per_second) == (2000, 500)
    assert read_log(texts.RUN_10).queries_per_second == 153.933


def test_transfers_are_off_where_the_summary_has_zeros_or_the_settings_say_so():
    zeros = texts.RUN_8_IMPLICIT
    assert read_log(zeros).transfers is False
    assert read_log(zeros.replace("[I] Batch: 4", "[I] Data transfers: Enabled")).transfers is True
    assert (
        read_log(zeros.replace("H2D Latency: min = 0 ms, max = 0", "H2D Latency: min = 0 ms, max = 1")).transfers
        is True
    )
    assert read_log("").transfers is None


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        (
            texts.PROFILED_10,
            [
                LayerTime("Conv_0 + (Unnamed Layer* 4) [Shuffle], 12.50 0.1", 36.0, 3.0, 2.95, 75.0),
                LayerTime("{ForeignNode[a...b]}", 12.0, 1.0, 1.05, 25.0),
            ],
        ),
        (
            texts.PROFILED_8,
            [
                LayerTime("Conv 1, {a [b] 2.5} 77.00 0.1", 23.73, 0.0721, 0.0636, 25.0),
                LayerTime("Transpose__8", 71.19, 0.2163, 0.2160, 75.0),
            ],
        ),
    ],
)
def test_layers_are_read_from_the_side_of_the_numbers(text, layers):
    log = read_log(text)
    assert list(log.layers) == layers
    assert log.objection("profile") == ""


def test_layers_of_a_version_without_medians_have_none():
    table = texts.PROFILED_8.replace("   Median Time (ms)", "").replace("             0.0636", "")
    assert read_log(table).layers == (LayerTime("Conv 1, {a [b] 2.5} 77.00 0.1", 23.73, 0.0721, None, 25.0),)


def test_activation_memory_of_version_8_is_not_the_workspace():
    assert read_log(texts.PROFILED_8).numbers["activation_bytes"] == 32256
    cut = texts.PROFILED_8[: texts.PROFILED_8.rindex("256\n")]  # ... Total Activation Memory: 32
    assert "activation_bytes" not in read_log(cut).numbers


def test_passed_is_not_believed_after_an_engine_error():
    text = texts.RUN_10.replace("[I] Starting inference", "[E] Engine deserialization failed")
    assert read_log(text).objection("time") == "the engine cannot be loaded: Engine deserialization failed"
    odd = texts.RUN_10.replace("[I] Starting inference", "[E] [TRT] the engine has gone")
    assert read_log(odd).objection("time") == "an error about the engine: the engine has gone"


def test_tactic_that_failed_is_no_error_of_the_engine():
    said = "[E] Error[9]: Skipping tactic 0x0000000000000000 due to exception [myelinEngine.cpp:12] no engine"
    log = read_log(texts.RUN_10.replace("[I] Starting inference", said))
    assert (log.failures, log.objection("time")) == ((), "")
    assert log.errors == (said[4:],)


def test_version_7_is_believed_though_it_tells_no_throughput():
    log = read_log(texts.RUN_7)
    assert (log.queries_per_second, log.objection("time")) == (None, "")
    assert read_log(texts.RUN_7.replace("GPU Compute", "GPU")).objection("time") != ""


def test_passed_is_not_believed_without_what_the_mode_promises():
    log = read_log(texts.PASSED_10)
    assert [log.objection(mode) for mode in MODES] == [
        "it PASSED, but without 'Engine built in'",
        "it PASSED, but without 'Engine deserialized in'",
        "it PASSED, but without 'Performance summary'",
        "it PASSED, but has no layer's time",
    ]


def test_want_of_memory_is_a_failure_only_where_the_run_failed():
    line = "[E] Error[2]: [virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no more is known)"
    log = read_log(line + "\n" + texts.RUN_10)
    assert (log.objection("time"), [failure.kind for failure in log.failures]) == ("", ["memory"])
    assert read_log(line + "\n").objection("time") == "not enough memory on the device: OutOfMemory"


def test_failed_outweighs_passed_and_text_after_it():
    assert read_log(texts.FAILED + texts.RUN_10 + "2024-06-22 T plugin.cpp:323] terminate\n").verdict == "FAILED"


@pytest.mark.parametrize(
    ("text", "kind", "said", "fix"),
    [
        (
            texts.UNKNOWN_OPTION,
            "option",
            ("--workspace", "--safe2"),
            "--workspace: --memPoolSize=workspace:MIB",
        ),
        (
            texts.PARSE_FAILED,
            "parser",
            (
                'While parsing node number 3 [Det -> "y"]',
                "[8] No importer registered for op: Det",
                "Plugin not found",
            ),
            "kdedge export --preset tensorrt   (operators, types and layouts that TensorRT takes)",
        ),
        (texts.DISK_FULL, "save", ("Saving engine to file failed",), "df -h .   (is there room?)"),
        (
            texts.OTHER_GPU,
            "other_gpu",
            ("expecting compute 8.7 got compute 7.2",),
            "kdedge export --trt   (builds it again, on this machine)",
        ),
    ],
)
def test_failure_has_a_cause_its_own_words_and_a_line_to_type(text, kind, said, fix):
    log = read_log(text)
    assert (log.failures[0].kind, log.failures[0].said, log.failures[0].fix) == (kind, said, fix)
    assert log.objection("build") == str(log.failures[0])
    assert log.verdict == "FAILED"


def test_summary_wrapped_over_lines_is_one_summary():
    text = "[I] Latency: min = 1 ms, max = 2 ms,\nmedian = 1.5 ms, percentile(99%) = 1.9 ms\n[I] other\nmean = 7 ms\n"
    assert read_log(text).metrics == {"latency": {"min": 1, "max": 2, "median": 1.5, "p99": 1.9}}


@pytest.mark.parametrize(
    "line",
    [
        "[I] Throughput: 12 fps",
        "[I] Throughput: 12",
        "[I] Throughput: 1e+999 qps",
        "[I] my Throughput: 12 qps",
        "[I] Latency: min = 3 s",
        "[I] My Latency: min = 3 ms",
        "[I] Latency: min = -3 ms",
        "[I] Total Weights Memory: 12",
        "[I] Total Scratch Memory: 12",  # cut short: the line has not ended
    ],
)
def test_number_without_its_name_or_unit_is_none(line):
    log = read_log(line)
    assert (log.numbers, log.metrics) == ({}, {})


def before_lines(mark: str, text: str) -> str:
    return "".join(mark + line if line.startswith(("[", "&")) else line for line in text.splitlines(True))


@pytest.mark.parametrize("name", texts.LOGS)
@pytest.mark.parametrize(
    "surround",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: before_lines("    ", text),
        lambda text: "".join("\x1b[32m" + line.rstrip("\n") + "\x1b[0m\n" for line in text.splitlines(True)),
        lambda text: before_lines("board-1  | ", text),
        lambda text: before_lines("2025-03-14T09:26:53.0123456Z ", text),
        lambda text: before_lines("> ", text),
        lambda text: text.replace("[03/14/2025-09:26:53] ", ""),
    ],
    ids=[
        "crlf",
        "byte order mark",
        "indented",
        "in color",
        "of a container",
        "of a pipeline",
        "quoted",
        "without times",
    ],
)
def test_what_stands_around_the_lines_changes_nothing(surround, name):
    """As a terminal, a container's log or a pasted issue has them."""
    plain, other = read_log(texts.LOGS[name]), read_log(surround(texts.LOGS[name]))
    assert other == plain
