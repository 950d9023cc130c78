"""Real output of trtexec: every sample has the verdict and the numbers that were read in it by hand."""

import os
from pathlib import Path

import pytest
from trtexec_samples import NAMES, SAMPLES, in_words

from kdedge.profile.trtexec_log import read_log
from kdedge.profile.trtexec_numbers import LayerTime

FOLDER = Path(os.environ.get("KDEDGE_SAMPLES", "none"))
HOW = "set KDEDGE_SAMPLES to a folder with trtexec_*.log"
MODES = ("build", "load", "time", "profile")


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_has_the_verdict_and_the_numbers_that_stand_in_it(name, needs):
    needs((FOLDER / name).is_file(), HOW)
    log, sample = read_log((FOLDER / name).read_text()), SAMPLES[name]
    assert (str(log.version), log.verdict) == (sample.version, sample.verdict)
    assert " ".join(mode for mode in MODES if not log.objection(mode)) == sample.modes
    assert log.warnings == sample.warnings
    assert tuple(failure.kind for failure in log.failures) == sample.failures
    assert log.numbers == in_words(sample.numbers)
    assert log.metrics == {
        metric: dict(zip(NAMES[len(values)], values, strict=True)) for metric, values in sample.metrics.items()
    }


def test_all_samples_are_expected(needs):
    needs(FOLDER.is_dir(), HOW)
    assert {path.name for path in FOLDER.glob("trtexec_*")} == set(SAMPLES)


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        (
            "trtexec_8.5.10_drive_orin_best_cudagraph_profile_TRIMMED.log",
            5,
            LayerTime(
                "Convolution28 + Parameter6 + (Unnamed Layer* 4) [Shuffle] + Plus30 + ReLU32",
                442.05,
                0.0102,
                0.0102,
                26.1,
            ),
            LayerTime("Times212", 331.21, 0.0076, 0.0079, 19.5),
        ),
        (
            "trtexec_8.5.10_x86_qat_int8_dumpprofile_TRIMMED.log",
            24,
            LayerTime("QuantizeLinear_2", 85.71, 0.0115, 0.0079, 3.2),
            LayerTime("Softmax_312", 108.58, 0.0145, 0.0051, 4.0),
        ),
        (
            "trtexec_8.5.2_xavier_nx_dumpprofile_layer_first_TRIMMED.log",
            8,
            LayerTime("{ForeignNode[CCT_OCR_1/Cast]}", 23.73, 0.0721, 0.0636, 0.8),
            LayerTime(
                "{ForeignNode[CCT_OCR_1/transformer_block_6_1/multi_head_attention_5_1/Cast/x:0..."
                "CCT_OCR_1/vocab_projection_1/dense_13_1/Softmax]}",
                2436.45,
                7.4056,
                7.154,
                78.5,
            ),
        ),
    ],
)
def test_sample_layers_have_their_times(name, count, first, last, needs):
    needs((FOLDER / name).is_file(), HOW)
    layers = read_log((FOLDER / name).read_text()).layers
    assert (len(layers), layers[0], layers[-1]) == (count, first, last)


def test_sample_settings_tell_precision_and_switches(needs):
    name = "trtexec_8.5.10_drive_orin_best_cudagraph_profile_TRIMMED.log"
    needs((FOLDER / name).is_file(), HOW)
    log = read_log((FOLDER / name).read_text())
    assert log.settings == {
        "Precision": "FP32+FP16+INT8",
        "Batch": "Explicit",
        "Streams": "1",
        "ExposeDMA": "Disabled",
        "Data transfers": "Disabled",
        "Spin-wait": "Enabled",
        "CUDA Graph": "Enabled",
    }


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        (0, "other_gpu", "expecting compute 7.5 got compute 7.0"),
        (1, "other_gpu", "expecting compute 8.6 got compute 7.5"),
        (2, "other_version", "expecting library version 8.2.3 got 8.2.1"),
        (3, "deserialize", "Engine deserialization failed"),
        (4, "other_version", "expecting library version 8.6.1.6 got 8.6.1.2"),
        (
            5,
            "other_version",
            "Version tag does not match. Note: Current Version: 96, Serialized Engine Version: 97",
        ),
        (
            6,
            "other_version",
            "Version tag does not match. Note: Current Version: 213, Serialized Engine Version: 232",
        ),
        (7, "not_an_engine", "Magic tag does not match"),
        (9, "damaged", "(Type mismatch)"),
    ],
)
def test_sample_message_of_an_engine_for_another_machine_has_its_cause(line, kind, said, needs):
    path = FOLDER / "trt_engine_incompat_messages_all_versions.txt"
    needs(path.is_file(), HOW)
    log = read_log(path.read_text().splitlines()[line] + "\n")
    assert [(failure.kind, failure.said) for failure in log.failures] == [(kind, (said,))]
    assert log.failures[0].fix == "kdedge export --trt   (builds it again, on this machine)"
    assert str(log.failures[0]) == log.objection("load")


def test_sample_warning_of_another_model_of_device_is_no_failure(needs):
    path = FOLDER / "trt_engine_incompat_messages_all_versions.txt"
    needs(path.is_file(), HOW)
    log = read_log(path.read_text().splitlines()[8] + "\n")
    assert (log.warnings, log.failures) == ({"other_device": 1}, ())
