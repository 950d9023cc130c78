"""The files that trtexec exports: statistics against the log of a real run, names against what JSON would allow."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import trtexec_texts as texts

from kdedge.core.errors import KdedgeError
from kdedge.engine.trt_layers import Layer
from kdedge.profile.trtexec_json import percentile, read_layer_times, read_layers, read_outputs, read_times, summarize
from kdedge.profile.trtexec_numbers import LayerTime

FOLDER = Path(os.environ.get("KDEDGE_SAMPLES", "none"))
HOW = "set KDEDGE_SAMPLES to a folder with exportTimes_*.json"
A100 = FOLDER / "exportTimes_8.4_resnet_fp16_A100_full_WITH_WARMUPS.json"


@pytest.mark.oracle
def test_times_of_a_real_run_give_what_its_log_says_to_the_last_digit(needs):
    needs(A100.is_file(), HOW)
    times = read_times(A100.read_text())
    assert (len(times.latency_ms), times.warmup_queries) == (3468, 230)
    said = {"min": "0.856049", "max": "0.872559", "mean": "0.86277", "median": "0.862183", "p99": "0.871338"}
    for values in (times.latency_ms, times.compute_ms):  # no copies in that run
        assert {name: f"{value:.6g}" for name, value in summarize(values, (99,)).items()} == said
    assert times.h2d_ms.max() == times.d2h_ms.max() == 0
    assert f"{times.walltime_ms / 1000:.6g}" == "3.00166"
    assert f"{times.queries_per_second:.6g}" == "1155.36"


@pytest.mark.oracle
def test_times_of_a_real_run_agree_with_another_tool_s_reading_of_its_log(needs):
    other = FOLDER / "trex_profile_metadata_8.x_resnet_fp16.json"
    needs(other.is_file(), HOW)
    summary = json.loads(other.read_text())["performance_summary"]
    times = read_times(A100.read_text())
    read = [float(f"{value:.6g}") for value in summarize(times.compute_ms, (99,)).values()]
    assert read == summary["GPU Compute Time"]
    assert float(f"{times.queries_per_second:.6g}") == summary["Throughput"]


def test_times_of_many_queries_take_little_more_memory_than_their_text():
    text = texts.exported_times([1.0] * 20_000, start=300.0)
    tracemalloc.start()
    times = read_times(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(times.compute_ms) == 20_000
    assert peak < 20_000 * 8 * 30  # seven numbers of eight bytes a query, copied; a dictionary alone takes twice that


def test_times_leave_the_warm_up_out_and_keep_the_order():
    times = read_times(texts.exported_times([9.0, 8.0, 2.0, 1.0, 4.0], start=190.0))
    # each takes its time and twice 0.25 ms of copying: they begin to compute at 190.25, 199.75, 208.25, ...
    assert times.warmup_queries == 2
    assert times.compute_ms.tolist() == [2, 1, 4]
    assert times.latency_ms.tolist() == [2.5, 1.5, 4.5]
    assert times.start_ms.tolist() == [208.25, 210.75, 212.25]
    assert times.walltime_ms == pytest.approx(8.5)
    assert times.queries_per_second == pytest.approx(3000 / 8.5)


@pytest.mark.parametrize(
    ("n", "p", "rank"),
    [
        (10, 90, 9),  # 1 of 10 left out: the ninth
        (10, 95, 10),
        (20, 90, 18),
        (100, 95, 95),
        (100, 99, 100),  # in single precision 1 % of 100 is a little less than 1
        (3468, 99, 3434),
        (1, 99, 1),
        (7, 0, 1),
        (7, 100, 7),
    ],
)
def test_percentile_is_the_nearest_rank_that_trtexec_takes(n, p, rank):
    values = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert percentile(values, p) == rank


def test_median_is_the_mean_of_the_two_middle_values():
    assert percentile(np.array([4.0, 1.0, 2.0, 8.0]), 50) == 3
    assert percentile(np.array([4.0, 1.0, 2.0]), 50) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "",
            "they are not JSON: Expecting value: line 1 column 1 (char 0)\n  they may be cut short: is the disk full?",
        ),
        (
            texts.exported_times([1.0, 2.0])[:-20],
            "they are not JSON: Unterminated string",
        ),
        ("{}", "they are not a list"),
        ("[]", "no query began after the warm-up of 200 ms"),
        ("[3]", "they are not a list of queries"),
        ("[{}]", "query 0 has no time startComputeMs"),
        (texts.exported_times([1.0, 2.0]).replace('"d2hMs" : 0.25', '"d2hMs" : {}', 1), "query 0 has no time startC"),
        (texts.exported_times([1.0]).replace('"d2hMs" : 0.25', '"d2hMs" : NaN'), "query 0 has no time d2hMs"),
        (texts.exported_times([1.0]).replace('"d2hMs" : 0.25', '"d2hMs" : -1'), "query 0 has no time d2hMs"),
        (texts.exported_times([1.0]).replace('"d2hMs" : 0.25', '"d2hMs" : true'), "query 0 has no time d2hMs"),
        (texts.exported_times([1.0], start=100), "no query began after the warm-up of 200 ms"),
        (
            texts.exported_times([1.0]).replace('"endD2hMs" : 201.5', '"endD2hMs" : 200'),
            "the last query ended before the first began",
        ),
    ],
)
def test_times_that_are_none_are_refused(text, said):
    with pytest.raises(KdedgeError) as caught:
        read_times(text)
    assert str(caught.value).startswith(f"the times that trtexec exported: {said}")


def test_layer_times_keep_quotes_and_backslashes_of_a_name():
    assert read_layer_times(texts.EXPORTED_PROFILE) == [
        LayerTime('Conv_0 "quoted\\', 36, 3, 2.95, 75),
        LayerTime("Relu_1", 12, 1, 1.05, 25),
    ]


def test_layer_times_of_a_real_run(needs):
    path = FOLDER / "exportProfile_8.x_resnet_fp16.json"
    needs(path.is_file(), HOW)
    layers = read_layer_times(path.read_text())
    assert len(layers) == 36
    copy = "Reformatting CopyNode for Input Tensor 0 to Conv_0 + Relu_1"
    assert layers[:3] == [
        LayerTime(copy, 0.080896, 0.080896, 0.080896, 7.95569),
        LayerTime("Conv_0 + Relu_1", 0.111616, 0.111616, 0.111616, 10.9768),
        LayerTime("MaxPool_2", 0.062464, 0.062464, 0.062464, 6.143),
    ]
    assert layers[-1].percent == 0.704934


def test_layer_times_without_medians_or_any_time_have_none():
    text = '[\n  { "count" : 1 }\n, { "name" : "a", "timeMs" : 0, "averageMs" : 0, "percentage" : -nan }\n]\n'
    assert read_layer_times(text) == [LayerTime("a", 0, 0, None, None)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            texts.EXPORTED_PROFILE.replace('"averageMs" : 1,', '"averageMs" : one,'),
            'line 4 is not a layer: { "name" : "Relu_1", "timeMs" : 12, "averageMs" : one, "medianMs" : 1.05, "perce',
        ),
        (texts.EXPORTED_PROFILE[:-5], "line 4 is not a layer"),
        ('[\n  { "count" : 0 }\n]\n', "they hold no layer"),
        ("", "they hold no layer"),
    ],
)
def test_layer_times_that_are_none_are_refused(text, said):
    with pytest.raises(KdedgeError) as caught:
        read_layer_times(text)
    assert str(caught.value).startswith(f"the layer times that trtexec exported: {said}")


def test_layers_have_the_nodes_of_their_metadata():
    assert read_layers(texts.EXPORTED_LAYERS) == [
        Layer("conv + relu", "CaskConvolution", "fp16", ("/net/conv [0]", "/net/relu", "/net/add")),
        Layer("Reformat 1", "Reformat", "", ()),
    ]


def test_layers_that_are_only_named_have_the_parts_of_their_names():
    assert read_layers(texts.EXPORTED_NAMES) == [
        Layer("Conv_0 + Relu_1", "", "", ("Conv_0", "Relu_1")),
        Layer("Gemm_2", "", "", ("Gemm_2",)),
    ]


@pytest.mark.parametrize(
    ("name", "count", "index", "layer"),
    [
        (
            "10.16_detailed",
            9,
            0,
            Layer("node_conv2d + node_relu", "CaskConvolution", "fp32", ("node_conv2d", "node_relu")),
        ),
        (
            "10.16_detailed",
            9,
            7,
            Layer("__myl_DivMulMaxr_myl4_3", "kgen", "fp32", ("node_softmax", "node_argmax")),
        ),
        ("8.x_resnet_fp16", 36, 1, Layer("Conv_0 + Relu_1", "CaskConvolution", "fp16", ("Conv_0", "Relu_1"))),
        (
            "8.x_resnet_qat_int8",
            37,
            1,
            Layer(
                "conv1.weight + QuantizeLinear_7 + Conv_9",
                "CaskConvolution",
                "int8",
                ("conv1.weight", "QuantizeLinear_7", "Conv_9"),
            ),
        ),
    ],
)
def test_layers_of_a_real_engine(name, count, index, layer, needs):
    path = FOLDER / f"exportLayerInfo_{name}.json"
    needs(path.is_file(), HOW)
    layers = read_layers(path.read_text())
    assert (len(layers), layers[index]) == (count, layer)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "they are not JSON"),
        ("[]", "they have no list of Layers"),
        ('{"Layers": [3]}', "layer 0 has no Name, LayerType and Inputs"),
        ('{"Layers": ["a", {"Name": "b", "LayerType": "c"}]}', "layer 1 has no Name, LayerType and Inputs"),
        ('{"Layers": [{"Name": "b", "LayerType": "c", "Inputs": [1]}]}', "layer 0 has no Name, LayerType and Inputs"),
    ],
)
def test_layers_that_are_none_are_refused(text, said):
    with pytest.raises(KdedgeError) as caught:
        read_layers(text)
    assert str(caught.value).startswith(f"the layers that trtexec exported: {said}")


def test_outputs_are_arrays_of_their_dimensions():
    found = read_outputs(texts.EXPORTED_OUTPUTS)
    assert list(found) == ["logits", "count"]
    assert found["count"].shape == ()
    assert found["count"] == 3
    assert found["logits"].shape == (2, 3)
    assert found["logits"][0].tolist() == [1.25, -0.5, 1.5e-05]
    assert np.isnan(found["logits"][1, 0])
    assert np.isinf(found["logits"][1, 1])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("-0.5, ", "", "logits does not hold the numbers of an array of 2x3"),
        ("-0.5", '"-0.5"', "logits does not hold the numbers of an array of 2x3"),
        ("-0.5", "true", "logits does not hold the numbers of an array of 2x3"),
        ("-0.5", "1" + "0" * 400, "logits does not hold the numbers of an array of 2x3"),
        ('"2x3"', '"2x-3"', "one has no name or dimensions"),
        ('"name"', '"nam"', "one has no name or dimensions"),
        ("[\n", "{", "they are not JSON"),
    ],
)
def test_outputs_that_are_not_whole_are_refused(before, after, said):
    with pytest.raises(KdedgeError, match=said):
        read_outputs(texts.EXPORTED_OUTPUTS.replace(before, after, 1))
