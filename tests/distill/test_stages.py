import pytest
from pydantic import TypeAdapter, ValidationError

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network
from kdedge.distill.stages import Stages, last_stage, matched_pairs, pair_stages, side
from kdedge.models.features import FeaturePoint


def network(image_size=16, **strides):
    """A network of stages with these strides."""
    points = {name: FeaturePoint(name, 4 * stride, stride) for name, stride in strides.items()}
    return Network(points, classes=10, image_size=image_size)


SHALLOW, DEEP = network(a=1, b=2, c=4), network(x=2, y=4, z=8)


@pytest.mark.parametrize(
    ("stages", "pairs"),
    [
        ("auto", [("b", "x"), ("c", "y")]),
        ("middle", [("c", "y")]),
        ("last", [("c", "z")]),
        ((("a", "x"), ("b", "z")), [("a", "x"), ("b", "z")]),
    ],
)
def test_pair_stages_follows_the_option(stages, pairs):
    assert pair_stages("m", stages, SHALLOW, DEEP) == pairs


@pytest.mark.parametrize(("count", "middle"), [(1, "s1"), (2, "s2"), (3, "s2"), (4, "s3"), (5, "s3")])
def test_pair_stages_middle_is_the_middle_of_the_shared_stages(count, middle):
    same = network(image_size=32, **{f"s{n}": 2 ** (n - 1) for n in range(1, count + 1)})
    assert pair_stages("m", "middle", same, same) == [(middle, middle)]


def test_pair_stages_takes_a_name_for_both():
    assert pair_stages("m", ("b",), SHALLOW, network(b=8)) == [("b", "b")]


@pytest.mark.parametrize("stages", ["auto", "middle"])
def test_pair_stages_leaves_out_single_places_only_when_places_are_compared(stages):
    deep = network(image_size=8, a=2, b=8)
    assert pair_stages("m", stages, deep, deep, places=True) == [("a", "a")]
    assert pair_stages("m", stages, deep, deep)[-1] == ("b", "b")


@pytest.mark.parametrize("stages", ["last", ("b",), (("a", "b"),)])
def test_pair_stages_refuses_a_single_place_that_was_asked_for(stages):
    deep = network(image_size=8, a=2, b=8)
    with pytest.raises(ModelError) as error:
        pair_stages("m", stages, deep, deep, places=True)
    whose = "teacher" if stages == (("a", "b"),) else "student"
    assert error.value.what == f"m: 'b' of the {whose} is a map of one place"
    assert pair_stages("m", stages, deep, deep)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((("d", "x"),), "m: the student has no stage 'd': known: a, b, c"),
        ((("a", "stage"),), "m: the teacher has no stage 'stage': known: x, y, z"),
    ],
)
def test_pair_stages_refuses_stages_that_there_are_not(stages, message):
    with pytest.raises(ModelError) as error:
        pair_stages("m", stages, SHALLOW, DEEP)
    assert str(error.value) == message


def test_pair_stages_refuses_networks_without_a_common_resolution():
    with pytest.raises(ModelError, match="no feature maps of one size"):
        pair_stages("m", "auto", network(a=1), network(a=2))
    with pytest.raises(ModelError, match="'a' of the student is a map of one place"):
        matched_pairs("m", network(a=16), network(a=16), places=True)


@pytest.mark.parametrize(("stride", "expected"), [(1, 30), (4, 8), (32, 1)])
def test_side_rounds_up(stride, expected):
    assert side(network(image_size=30, a=stride), "a") == expected


def test_last_stage_is_the_deepest():
    assert last_stage(SHALLOW) == "c"


def test_stages_option_takes_names_and_pairs_from_a_recipe():
    assert TypeAdapter(Stages).validate_python(["a", ["b", "x"]]) == ("a", ("b", "x"))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "at least 1 item"),
        ("stage1", "'auto', 'middle' or 'last'"),
        ([["a", "b", "c"]], "at most 2 items"),
        (["a", ["a", "b"], "c"], "student stage listed twice: a"),
    ],
)
def test_stages_option_refuses(stages, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Stages).validate_python(stages)
