"""Early exits in ONNX files, and the cascade that such a file is cut into."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import realtrt
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from kdedge.core.deployment import Export, Quantization
from kdedge.core.errors import ModelError
from kdedge.core.recipe import Normalize
from kdedge.core.stats import output_error
from kdedge.distill.base import Network
from kdedge.distill.exits import Branched
from kdedge.distill.methods.self_distill import SelfDistill, SelfDistillConfig
from kdedge.engine.base import backend
from kdedge.engine.rows import run_rows
from kdedge.export.exits import cut
from kdedge.export.int8 import to_int8
from kdedge.export.onnx import Outputs, export_onnx, load, read_metadata
from kdedge.export.precision import to_fp16
from kdedge.models.features import FeaturePoint, feature_points
from kdedge.models.zoo import build_model

Images = NDArray[Any]
Infer = Callable[[Path, Images], Images]
Needs = Callable[[object, str], None]
SHAPE, LABELS = (3, 32, 32), tuple("abcdefghij")
NORMALIZE = Normalize(mean=(0.48, 0.45, 0.40), std=(0.23, 0.22, 0.25))
TENSORRT = Quantization(activations="int8", symmetric=True, quantize_bias=False)
ONE = {"threads": 1}


@dataclass(frozen=True)
class Subject:
    """A network whose exits have been trained, as far as batch norms go."""

    student: nn.Module
    method: SelfDistill
    points: dict[str, FeaturePoint]

    @property
    def stages(self) -> list[str]:
        return list(self.points)

    @property
    def outputs(self) -> Outputs:
        exits = tuple(f"exit{number}" for number in range(1, len(self.stages)))
        return Outputs((*exits, "logits"), tuple(self.stages[:-1]), "all")

    def upto(self, *stages: str, features: tuple[str, ...] = ()) -> Branched:
        return Branched(self.student, self.method, self.points, stages, features).eval()


def lived_in(name: str, **options: Any) -> Subject:
    torch.manual_seed(0)
    student = build_model(name, options, len(LABELS), SHAPE)
    points = feature_points(student, SHAPE)
    subject = Subject(student, SelfDistill(SelfDistillConfig(), Network(points, len(LABELS), 32), None), points)
    with torch.no_grad():
        for _ in range(3):
            Branched(student, subject.method, points, list(points)).train()(torch.randn(16, *SHAPE))
    return subject


@pytest.fixture(scope="module")
def resnet() -> Subject:
    return lived_in("resnet8", conv="depthwise")


@pytest.fixture(scope="module", params=["resnet", "vgg"])
def subject(request: pytest.FixtureRequest, resnet: Subject) -> Subject:
    return resnet if request.param == "resnet" else lived_in("vgg8", width=0.125)


@pytest.fixture(scope="module")
def pictures() -> Images:
    return np.random.default_rng(1).standard_normal((24, *SHAPE), dtype=np.float32)


@pytest.fixture(scope="module")
def resnet_whole(resnet: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All its exits, in fp32."""
    return export(resnet, tmp_path_factory.mktemp("resnet") / "student.onnx")


@pytest.fixture(scope="module")
def whole(subject: Subject, resnet: Subject, resnet_whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if subject is resnet:
        return resnet_whole
    return export(subject, tmp_path_factory.mktemp("vgg") / "student.onnx")


@pytest.fixture(scope="module")
def resnet_of_pixels(resnet: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pixels") / "student.onnx"
    return export(resnet, path, preprocess=True, dynamic_batch=False)


def export(subject: Subject, path: Path, **keys: Any) -> Path:
    traced = subject.upto(*subject.stages, features=subject.outputs.features)
    export_onnx(traced, path, SHAPE, Export(**keys), NORMALIZE, LABELS, subject.outputs)
    return path


def weights(path: Path) -> int:
    """Numbers that were learned; shapes and axes are whole numbers."""
    arrays = [numpy_helper.to_array(value) for value in load(path).graph.initializer]
    return sum(array.size for array in arrays if array.dtype == np.float32)


def folded(*parts: nn.Module) -> int:
    """Weights of layers that follow each other, each batch norm folded to one bias a channel."""
    count = 0
    for module in (module for part in parts for module in part.modules()):
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            count += module.weight.numel()
        if isinstance(module, nn.Linear):
            count += module.out_features
        if isinstance(module, nn.BatchNorm2d):
            count += module.num_features
    return count


def answers(path: Path, images: Images) -> dict[str, Images]:
    with backend("ort").open(path, ONE) as session:
        return run_rows(session, images)


def cascade(paths: list[Path], outputs: Outputs, images: Images) -> dict[str, Images]:
    """Every exit's logits by the stage models alone, one after the other."""
    found, rows = {}, images
    for number, path in enumerate(paths):
        given = answers(path, rows)
        found[outputs.logits[number]] = given[outputs.logits[number]]
        rows = given[outputs.features[number]] if number < len(outputs.features) else rows
    return found


def stages_of(source: Path, subject: Subject, folder: Path) -> list[Path]:
    paths = [folder / f"cascade{number}.onnx" for number in range(1, len(subject.stages) + 1)]
    cut(source, paths, subject.outputs)
    return paths


def test_default_export_carries_no_head(resnet: Subject, tmp_path: Path) -> None:
    export_onnx(resnet.student, tmp_path / "student.onnx", SHAPE, Export(), NORMALIZE, LABELS)
    assert weights(tmp_path / "student.onnx") == folded(resnet.student)
    assert "exit" not in read_metadata(tmp_path / "student.onnx")


def test_one_exit_is_its_stages_and_its_head_and_nothing_else(
    resnet: Subject, tmp_path: Path, pictures: Images, infer: Infer
) -> None:
    path, outputs = tmp_path / "exit.onnx", Outputs(exit="2/3")
    export_onnx(resnet.upto("stage2"), path, SHAPE, Export(), NORMALIZE, LABELS, outputs)
    student, heads = resnet.student, resnet.method.heads
    stem = [student.get_submodule(name) for name in ("conv1", "bn1", "layer1", "layer2")]
    assert weights(path) == folded(*stem, heads["stage2"])
    assert read_metadata(path)["exit"] == "2/3"
    assert [value.name for value in load(path).graph.output] == ["logits"]
    with torch.no_grad():
        wanted = resnet.upto("stage2")(torch.from_numpy(pictures)).numpy()
    assert output_error(wanted, infer(path, pictures))[0] < 1e-5


def test_all_exits_are_outputs_by_name(subject: Subject, whole: Path, pictures: Images) -> None:
    assert [value.name for value in load(whole).graph.output] == list(subject.outputs.logits)
    assert weights(whole) == folded(subject.student, subject.method.heads)
    assert read_metadata(whole)["exit"] == "all"
    with torch.no_grad():
        wanted = subject.upto(*subject.stages)(torch.from_numpy(pictures))
    found = answers(whole, pictures)
    assert list(found) == list(subject.outputs.logits)
    for name, logits in zip(found, wanted, strict=True):
        assert output_error(logits.numpy(), found[name])[0] < 1e-5


def test_cascade_computes_what_the_whole_model_does_at_batch_1(
    subject: Subject, whole: Path, pictures: Images, tmp_path: Path
) -> None:
    paths, builder = stages_of(whole, subject, tmp_path), backend("ort")
    for path in [*paths, whole]:
        builder.build(path, tmp_path / f"{path.stem}.engine.onnx", ONE)
    engines = [tmp_path / f"{path.stem}.engine.onnx" for path in paths]
    for image in pictures[:8, None]:
        exact, found = answers(tmp_path / f"{whole.stem}.engine.onnx", image), cascade(engines, subject.outputs, image)
        largest = max(np.abs(logits).max() for logits in exact.values())
        assert all(np.abs(found[name] - exact[name]).max() < 1e-5 * largest for name in exact)


def test_cascade_takes_batches_and_holds_each_weight_once(
    subject: Subject, whole: Path, pictures: Images, tmp_path: Path
) -> None:
    paths = stages_of(whole, subject, tmp_path)
    exact, found = answers(whole, pictures), cascade(paths, subject.outputs, pictures)
    assert all(output_error(exact[name], found[name])[0] < 1e-5 for name in exact)
    assert sum(map(weights, paths)) == weights(whole)


def test_stage_models_say_what_they_are(resnet: Subject, resnet_whole: Path, tmp_path: Path) -> None:
    paths = stages_of(resnet_whole, resnet, tmp_path)
    taken = [[(value.name, shape_of(value)) for value in load(path).graph.input] for path in paths]
    given = [[(value.name, shape_of(value)) for value in load(path).graph.output] for path in paths]
    assert taken == [
        [("images", ["batch", 3, 32, 32])], [("stage1", ["batch", 16, 32, 32])], [("stage2", ["batch", 32, 16, 16])]
    ]  # fmt: skip
    assert given == [
        [("exit1", ["batch", 10]), ("stage1", ["batch", 16, 32, 32])],
        [("exit2", ["batch", 10]), ("stage2", ["batch", 32, 16, 16])],
        [("logits", ["batch", 10])],
    ]
    first, second = read_metadata(paths[0]), read_metadata(paths[1])
    assert (first["exit"], second["exit"], second["precision"]) == ("1/3", "2/3", "fp32")
    assert first["labels"] == second["labels"] == list(LABELS)
    assert first["layout"] == "NCHW"
    assert "layout" not in second


def shape_of(value: Any) -> list[Any]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("quantization", [Quantization(), TENSORRT], ids=["uint8", "symmetric int8"])
def test_int8_cascade_gives_the_numbers_of_the_int8_model(
    subject: Subject, whole: Path, pictures: Images, tmp_path: Path, quantization: Quantization
) -> None:
    """Feature maps change hands already quantized, so that nothing is rounded twice."""
    to_int8(whole, tmp_path / "int8.onnx", pictures, Export(quantization=quantization))
    paths = stages_of(tmp_path / "int8.onnx", subject, tmp_path)
    exact, found = answers(tmp_path / "int8.onnx", pictures), cascade(paths, subject.outputs, pictures)
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], atol=1e-5 * np.abs(exact[name]).max())
    for path in paths:
        backend("ort").build(path, tmp_path / "stage.engine.onnx", ONE)
        with backend("ort").open(tmp_path / "stage.engine.onnx", ONE) as session:
            assert session.precision_built()["int8"] >= 2
        assert read_metadata(path)["precision"] == "int8"


def test_fp16_cascade_stays_within_the_rounding_of_its_feature_maps(
    subject: Subject, whole: Path, pictures: Images, tmp_path: Path
) -> None:
    to_fp16(whole, tmp_path / "fp16.onnx")
    paths = stages_of(tmp_path / "fp16.onnx", subject, tmp_path)
    assert load(paths[1]).graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    exact, found = answers(tmp_path / "fp16.onnx", pictures), cascade(paths, subject.outputs, pictures)
    for name in exact:
        assert output_error(exact[name], found[name])[0] < 5e-3


def converted(source: Path, precision: str, images: Images, folder: Path, export: Export) -> Path:
    if precision == "fp16":
        to_fp16(source, folder / "fp16.onnx")
    if precision == "int8":
        to_int8(source, folder / "int8.onnx", images, export)
    return source if precision == "fp32" else folder / f"{precision}.onnx"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_preprocessing_belongs_to_the_first_stage(
    resnet: Subject, resnet_of_pixels: Path, tmp_path: Path, precision: str
) -> None:
    """Photos of another size than the network's, one at a time."""
    photos = np.random.default_rng(2).integers(0, 256, (4, 40, 24, 3), dtype=np.uint8)
    source = converted(resnet_of_pixels, precision, photos, tmp_path, Export(preprocess=True, dynamic_batch=False))
    paths = stages_of(source, resnet, tmp_path)
    assert ["preprocess/resize" in {node.name for node in load(path).graph.node} for path in paths] == [1, 0, 0]
    assert shape_of(load(paths[0]).graph.input[0]) == [1, "height", "width", 3]
    assert shape_of(load(paths[1]).graph.input[0]) == [1, 16, 32, 32]
    exact, found = answers(source, photos), cascade(paths, resnet.outputs, photos)
    tolerance = {"fp32": 1e-5, "fp16": 5e-3, "int8": 1e-5}[precision]
    assert all(output_error(exact[name], found[name])[0] < tolerance for name in exact)


def test_network_that_reaches_around_a_feature_map_cannot_be_cut(tmp_path: Path) -> None:
    """logits = stage1 + images, where stage1 = relu(images) is no complete cut."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in ("images", "exit1", "logits")]
    nodes = [
        helper.make_node("Relu", ["images"], ["stage1"]),
        helper.make_node("Neg", ["stage1"], ["exit1"]),
        helper.make_node("Add", ["stage1", "images"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "around", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "m.onnx")
    paths, outputs = [tmp_path / "1.onnx", tmp_path / "2.onnx"], Outputs(("exit1", "logits"), ("stage1",), "all")
    with pytest.raises(ModelError, match=r"cannot be cut at stage1: a layer behind it reads images as well"):
        cut(tmp_path / "m.onnx", paths, outputs)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_builds_every_stage(
    resnet: Subject, resnet_whole: Path, tmp_path: Path, pictures: Images, needs: Needs, precision: str
) -> None:
    needs(realtrt.FOLDER, realtrt.HOW)
    source = converted(resnet_whole, precision, pictures, tmp_path, Export(quantization=TENSORRT))
    for path in stages_of(source, resnet, tmp_path):
        assert realtrt.build(needs, path, tmp_path / "stage.engine")["precision"][precision] >= 4
