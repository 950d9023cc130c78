import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.errors import KdedgeError, MissingTool, ModelError
from kdedge.engine.base import TensorSpec, backend
from kdedge.engine.feeds import input_shapes, random_feeds

ORT = backend("ort")
ONE = {"threads": 1}


@pytest.fixture
def linear(tmp_path):
    """y = x W with W = [[1, 2], [3, 4], [5, 6]]."""
    weight = numpy_helper.from_array(np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "linear", [x], [y], [weight])
    path = tmp_path / "linear.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def outputs_of(path, feeds):
    with ORT.open(path, ONE) as session:
        return session.run(feeds)


def test_session_computes_the_model(linear):
    feeds = {"x": np.array([[1, 0, 0], [1, 1, 1]], dtype=np.float32)}
    assert outputs_of(linear, feeds)["y"].tolist() == [[1, 2], [9, 12]]


def test_session_describes_its_inputs_and_outputs(make_net):
    with ORT.open(make_net("fp16"), ONE) as session:
        assert session.inputs == [TensorSpec("image", (None, 3, 32, 32), "float16")]
        assert session.outputs == [TensorSpec("logits", (None, 10), "float16")]
        assert session.provider == "CPUExecutionProvider"


def test_outputs_that_are_no_tensors_keep_their_own_type():
    from onnxruntime.datasets import get_example

    with ORT.open(Path(get_example("logreg_iris.onnx")), ONE) as session:
        assert session.outputs[1] == TensorSpec("probabilities", (), "seq(map(int64,tensor(float)))")
        assert len(session.run({"float_input": np.zeros((3, 2), dtype=np.float32)})["probabilities"]) == 3


@pytest.mark.parametrize(("precision", "computed"), [("fp32", "fp32"), ("fp16", "fp32"), ("int8", "int8")])
def test_engine_gives_the_outputs_of_its_onnx_and_says_what_it_computes_in(make_net, tmp_path, precision, computed):
    source, engine = make_net(precision), tmp_path / f"built/net-{precision}.engine.onnx"
    ORT.build(source, engine, ONE)
    dtype = np.float16 if precision == "fp16" else np.float32
    feeds = {"image": np.random.default_rng(2).random((5, 3, 32, 32)).astype(dtype)}
    plain = outputs_of(source, feeds)["logits"].astype(np.float64)
    with ORT.open(engine, ONE) as session:
        built = session.run(feeds)["logits"].astype(np.float64)
        # two convolutions (each with its Relu fused in), the pooling and the classifier
        assert session.precision_built() == {computed: 4}
    assert np.abs(plain - built).max() <= 1e-6 * np.abs(plain).max()
    assert np.abs(plain).max() > 0.01


def test_plain_onnx_has_no_precision_read_back(make_net):
    with ORT.open(make_net(), ONE) as session:
        assert session.precision_built() == {}


def test_sidecar_says_what_the_engine_is(make_net, tmp_path):
    from kdedge.core.rundir import sha256_file

    source, engine = make_net(), tmp_path / "net.engine.onnx"
    ORT.build(source, engine, ONE)
    record = json.loads((tmp_path / "net.engine.onnx.json").read_text())
    assert record["onnx_sha256"] == sha256_file(source)
    assert record["engine_sha256"] == sha256_file(engine)
    assert record["versions"] == {"onnxruntime": onnxruntime.__version__}
    assert record["options"] == {"threads": 1, "provider": "CPUExecutionProvider", "graph_optimization": "all"}
    assert set(record["device"]) == {"arch", "cpu", "instruction_sets"}


def test_build_and_open_are_silent(make_net, tmp_path, capfd):
    engine = tmp_path / "net.engine.onnx"
    ORT.build(make_net("fp16"), engine, {})
    ORT.open(engine, {}).close()
    assert capfd.readouterr() == ("", "")


def test_build_leaves_nothing_but_engine_and_sidecar(make_net, tmp_path):
    ORT.build(make_net(), tmp_path / "out/net.engine.onnx", ONE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["net.engine.onnx", "net.engine.onnx.json"]


def test_failed_build_leaves_the_earlier_engine(make_net, tmp_path):
    engine, bad = tmp_path / "out/net.engine.onnx", tmp_path / "bad.onnx"
    ORT.build(make_net(), engine, ONE)
    bad.write_bytes(b"no model")
    with pytest.raises(ModelError):
        ORT.build(bad, engine, ONE)
    assert len(list((tmp_path / "out").iterdir())) == 2
    ORT.open(engine, ONE).close()


def test_engine_holds_weights_that_the_onnx_keeps_in_another_file(make_net, tmp_path):
    net = onnx.load(make_net())
    source, engine = tmp_path / "apart/net.onnx", tmp_path / "net.engine.onnx"
    source.parent.mkdir()
    onnx.save(net, source, save_as_external_data=True, location="net.data", size_threshold=0)
    feeds = {"image": np.ones((1, 3, 32, 32), dtype=np.float32)}
    plain = outputs_of(source, feeds)
    ORT.build(source, engine, ONE)
    (tmp_path / "apart/net.data").unlink()
    np.testing.assert_allclose(outputs_of(engine, feeds)["logits"], plain["logits"], rtol=1e-6)


def unknown_operator(path):
    net = onnx.load(path)
    net.graph.node[1].op_type = "Rleu"
    return net.SerializeToString()


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda path: b"", "No graph was found in the protobuf."),
        (lambda path: b"what is this? " * 9, "Protobuf parsing failed."),
        (lambda path: path.read_bytes()[:900], "Protobuf parsing failed."),
        (unknown_operator, "No Op registered for Rleu"),
    ],
    ids=["empty", "garbage", "truncated", "unknown-operator"],
)
def test_broken_onnx_names_the_file_and_the_cause_in_one_line(make_net, tmp_path, spoil, cause):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(spoil(make_net()))
    for attempt in (lambda: ORT.open(bad, ONE), lambda: ORT.build(bad, tmp_path / "x.engine.onnx", ONE)):
        with pytest.raises(ModelError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith(f"model {bad}: ")
        assert cause in message
        assert "\n" not in message
        assert "ONNXRuntimeError" not in message


@pytest.mark.parametrize(("name", "why"), [("absent.onnx", "there is no such file"), (".", "it is not a file")])
def test_model_that_is_no_file_is_refused(tmp_path, name, why):
    with pytest.raises(ModelError, match=why):
        ORT.open(tmp_path / name, ONE)


def test_causes_lose_the_librarys_source_lines(make_net, tmp_path):
    net = onnx.load(make_net())
    net.opset_import[0].version = 999
    bad = tmp_path / "future.onnx"
    bad.write_bytes(net.SerializeToString())
    with pytest.raises(ModelError) as caught:
        ORT.open(bad, ONE)
    assert caught.value.why.startswith("ONNX Runtime only *guarantees* support")


@pytest.fixture
def engine(make_net, tmp_path):
    path = tmp_path / "net.engine.onnx"
    ORT.build(make_net(), path, ONE)
    return path


def change_sidecar(engine, **changes):
    path = engine.with_name(engine.name + ".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"versions": {"onnxruntime": "1.0.0"}},
            "versions.onnxruntime: built with 1.0.0, here " + onnxruntime.__version__,
        ),
        ({"device": {"arch": "pdp11"}}, "device.arch: built with pdp11, here "),
        ({"device": {}}, "device.arch: built with None, here "),
        ({"backend": "trt"}, "backend: built with trt, here ort"),
        ({"schema_version": 2}, "schema_version: built with 2, here 1"),
        ({"engine_sha256": "0"}, "its bytes are not those that net.engine.onnx.json describes"),
    ],
)
def test_engine_of_elsewhere_is_refused_with_the_field_and_the_line_to_type(engine, changes, said):
    change_sidecar(engine, **changes)
    with pytest.raises(ModelError) as caught:
        ORT.open(engine, ONE)
    assert said in caught.value.why
    assert caught.value.fix.startswith("kdedge export --ort ")


def test_engine_of_another_cpu_is_refused(engine, monkeypatch):
    from kdedge.engine import machine

    monkeypatch.setattr(machine, "cpu_model", lambda root: "Other CPU")
    with pytest.raises(ModelError, match=r"device.cpu: built with .*, here Other CPU"):
        ORT.open(engine, ONE)


def test_corrupt_engine_is_refused(engine):
    engine.write_bytes(engine.read_bytes()[:-8])
    with pytest.raises(ModelError, match=r"net.engine.onnx: its bytes are not those"):
        ORT.open(engine, ONE)


@pytest.mark.parametrize(("text", "said"), [("{", "is not JSON"), ("[]", "is not a JSON object")])
def test_engine_with_a_broken_sidecar_is_refused(engine, text, said):
    engine.with_name(engine.name + ".json").write_text(text)
    with pytest.raises(ModelError, match=said):
        ORT.open(engine, ONE)


def test_engine_without_a_sidecar_is_refused(engine):
    engine.with_name(engine.name + ".json").unlink()
    with pytest.raises(ModelError, match=r"net.engine.onnx.json is missing"):
        ORT.open(engine, ONE)


def test_build_wants_the_suffix_that_open_knows_engines_by(make_net, tmp_path):
    with pytest.raises(ModelError, match=r"named \*.engine.onnx"):
        ORT.build(make_net(), tmp_path / "net.ort", ONE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": 0}, "expected a whole number from 1 on, given 0"),
        ({"threads": True}, "given True"),
        ({"threads": "2"}, "given '2'"),
        ({"provider": "CUDAExecutionProvider"}, "has no value 'CUDAExecutionProvider'"),
        ({"graph_optimization": "al"}, "did you mean 'all'"),
    ],
)
def test_option_with_an_impossible_value_is_refused(options, said):
    with pytest.raises(KdedgeError, match=said):
        ORT.settings(options)


def test_threads_default_to_the_cores_this_process_may_use():
    from kdedge.engine.machine import usable_cores

    assert ORT.settings({})["threads"] == usable_cores()


def test_provider_that_this_onnxruntime_lacks_is_an_error(make_net, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["OtherProvider"])
    with pytest.raises(MissingTool, match="CPUExecutionProvider is not in this onnxruntime: it has OtherProvider"):
        ORT.open(make_net(), ONE)


def test_provider_that_fell_back_is_an_error(make_net, monkeypatch):
    class FellBack(onnxruntime.InferenceSession):
        def get_providers(self):
            return ["OtherProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", FellBack)
    with pytest.raises(MissingTool, match=r"CPUExecutionProvider does not load: .* fell back to OtherProvider"):
        ORT.open(make_net(), ONE)


def test_query_that_the_library_refuses_names_the_model(linear):
    with ORT.open(linear, ONE) as session, pytest.raises(ModelError, match=r"linear.onnx failed to run"):
        session.run({"x": np.ones((1, 4), dtype=np.float32)})


def test_closed_session_cannot_run(linear):
    session = ORT.open(linear, ONE)
    session.close()
    with pytest.raises(ValueError, match=r"session of linear.onnx is closed"):
        session.run({"x": np.ones((1, 3), dtype=np.float32)})


def test_missing_onnxruntime_names_the_install_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingTool, match="pip install onnxruntime"):
        ORT.versions()


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet"])
def test_models_of_the_onnx_package_build_to_the_same_outputs(tmp_path, name):
    same_when_built(Path(onnx.__file__).parent / f"backend/test/data/light/{name}.onnx", {}, tmp_path)


@pytest.mark.parametrize("name", ["fastestdet", "mnist_cntk", "ultraface_rfb320", "yunet_n_dynamic"])
def test_third_party_models_build_to_the_same_outputs(needs, tmp_path, name):
    path = Path(os.environ.get("KDEDGE_DATA", "")) / f"models_onnx/{name}.onnx"
    needs(path.is_file(), f"set KDEDGE_DATA to a folder with models_onnx/{name}.onnx")
    same_when_built(path, {"input": (1, 3, 96, 128)} if "dynamic" in name else {}, tmp_path)


def same_when_built(path, shapes, folder):
    engine = folder / f"{path.stem}.engine.onnx"
    ORT.build(path, engine, ONE)
    with ORT.open(path, ONE) as plain, ORT.open(engine, ONE) as built:
        feeds = random_feeds(path.name, plain.inputs, input_shapes(path.name, plain.inputs, shapes), seed=0)
        expected, got = plain.run(feeds), built.run(feeds)
        assert sum(built.precision_built().values()) > 0
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5 * max(1e-6, float(np.abs(value).max())))
