import numpy as np
import pytest

from kdedge.core.errors import ModelError
from kdedge.engine.base import TensorSpec
from kdedge.engine.feeds import input_shapes, random_feeds

IMAGE = TensorSpec("image", (None, 3, None, None), "float32")
FIXED = TensorSpec("image", (1, 3, 32, 32), "float32")
BATCH = TensorSpec("image", (None, 3, 32, 32), "float32")
MASK = TensorSpec("mask", (None, 7), "int64")
SCALAR = TensorSpec("scale", (), "float32")


@pytest.mark.parametrize(
    ("specs", "asked", "batch", "shapes"),
    [
        ([FIXED], {}, 1, {"image": (1, 3, 32, 32)}),
        ([BATCH], {}, 8, {"image": (8, 3, 32, 32)}),
        ([BATCH, MASK, SCALAR], {}, 2, {"image": (2, 3, 32, 32), "mask": (2, 7), "scale": ()}),
        ([IMAGE], {"image": (2, 3, 9, 8)}, 1, {"image": (2, 3, 9, 8)}),
        ([TensorSpec("image", (8, 3, 32, 32), "float32")], {}, 1, {"image": (8, 3, 32, 32)}),
        ([], {}, 4, {}),
    ],
)
def test_input_shapes_are_the_models_with_what_was_asked(specs, asked, batch, shapes):
    assert input_shapes("m.onnx", specs, asked, batch) == shapes


@pytest.mark.parametrize(
    ("specs", "asked", "batch", "said"),
    [
        (
            [IMAGE],
            {},
            1,
            "m.onnx needs its input shapes: image float32 [?, 3, ?, ?] leaves axis 2, 3 open\n"
            "  kdedge profile m.onnx --shape image=1x3x224x224   (with your sizes)",
        ),
        (
            [FIXED, TensorSpec("ids", (None, None), "int64")],
            {},
            1,
            "m.onnx needs its input shapes: ids int64 [?, ?] leaves axis 1 open\n"
            "  kdedge profile m.onnx --shape ids=1x1   (with your sizes)",
        ),
        (
            [FIXED],
            {"imgae": (1, 3, 32, 32)},
            1,
            "m.onnx has no input 'imgae': did you mean 'image'?\n"
            "  kdedge profile m.onnx --shape image=1x3x32x32   (with your sizes)",
        ),
        (
            [IMAGE],
            {"image": (3, 224, 224)},
            1,
            "shape 3x224x224 for an input of m.onnx: the model takes image float32 [?, 3, ?, ?]\n"
            "  kdedge profile m.onnx --shape image=1x3x224x224   (with your sizes)",
        ),
        (
            [FIXED],
            {"image": (1, 4, 32, 32)},
            1,
            "shape 1x4x32x32 for an input of m.onnx: the model takes image float32 [1, 3, 32, 32]\n"
            "  kdedge profile m.onnx --shape image=1x3x32x32   (with your sizes)",
        ),
        (
            [FIXED],
            {},
            8,
            "batch 8 for m.onnx: its input image is 1x3x32x32\n"
            "  leave the batch out, or export the model with a dynamic one",
        ),
    ],
    ids=["open-axes", "one-of-two-open", "unknown-input", "rank", "fixed-axis", "fixed-batch"],
)
def test_input_shapes_that_do_not_fit_end_in_the_line_to_type(specs, asked, batch, said):
    with pytest.raises(ModelError) as caught:
        input_shapes("m.onnx", specs, asked, batch)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("float16", 0, 1),
        ("float32", 0, 1),
        ("float64", 0, 1),
        ("uint8", 0, 255),
        ("int8", -128, 127),
        ("int64", 0, 1),
        ("int32", 0, 1),
        ("bool", 0, 1),
    ],
)
def test_random_feeds_fill_the_range_of_their_type(dtype, low, high):
    spec = TensorSpec("x", (4, 1000), dtype)
    values = random_feeds("m.onnx", [spec], {"x": (4, 1000)}, seed=0)["x"]
    assert values.dtype == dtype
    assert values.shape == (4, 1000)
    assert values.min() >= low
    assert values.max() <= high
    assert np.ptp(values.astype(float)) > 0.95 * (high - low)


def test_random_feeds_repeat_with_the_seed():
    spec = TensorSpec("x", (8,), "float32")
    first, again, other = (random_feeds("m.onnx", [spec], {"x": (8,)}, seed)["x"] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("dtype", ["object", "bfloat16", "seq(tensor(float))"])
def test_input_of_a_type_without_random_values_is_refused(dtype):
    spec = TensorSpec("text", (1,), dtype)
    with pytest.raises(ModelError, match="cannot be filled at random"):
        random_feeds("m.onnx", [spec], {"text": (1,)}, seed=0)
