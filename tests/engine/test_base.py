import numpy as np
import pytest

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine.base import Backend, Session, TensorSpec, backend, backend_names, register


class Doubler(Session):
    """y = 2 x for any number of pairs."""

    def __init__(self) -> None:
        specs = [TensorSpec("x", (None, 2), "float32")], [TensorSpec("y", (None, 2), "float32")]
        super().__init__("doubler", *specs, provider="numpy", precision={"fp32": 1})
        self.closed = False

    def _infer(self, feeds):
        return {"y": 2 * feeds["x"]}

    def close(self):
        self.closed = True


PAIR = np.array([[1, 2]], dtype=np.float32)


def test_run_gives_named_outputs():
    assert Doubler().run({"x": PAIR})["y"].tolist() == [[2, 4]]


def test_enqueue_repeats_the_last_feeds():
    session = Doubler()
    session.run({"x": PAIR})
    session.run({"x": PAIR + 1})
    assert session.enqueue()["y"].tolist() == [[4, 6]]


def test_enqueue_before_any_run_is_refused():
    with pytest.raises(ValueError, match="before the first run"):
        Doubler().enqueue()


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, "doubler got no input 'x': it takes x float32 [?, 2]\n  given: nothing"),
        ({"image": PAIR}, "doubler got no input 'x': it takes x float32 [?, 2]\n  given: image"),
        ({"x": PAIR, "x2": PAIR}, "doubler has no input 'x2': did you mean 'x'?\n  it takes x float32 [?, 2]"),
        ({"x": PAIR.astype("float64")}, "input of doubler: expected x float32 [?, 2], given x float64 [1, 2]"),
        ({"x": PAIR[:, :1]}, "input of doubler: expected x float32 [?, 2], given x float32 [1, 1]"),
        ({"x": PAIR[0]}, "input of doubler: expected x float32 [?, 2], given x float32 [2]"),
    ],
)
def test_feeds_that_do_not_fit_are_named_with_what_was_expected(feeds, said):
    with pytest.raises(ModelError) as caught:
        Doubler().run(feeds)
    assert str(caught.value) == said


def test_feeds_are_checked_again_when_their_form_changes():
    session = Doubler()
    session.run({"x": PAIR})
    session.run({"x": np.concatenate([PAIR, PAIR])})
    with pytest.raises(ModelError, match="float64"):
        session.run({"x": PAIR.astype("float64")})


def test_session_closes_at_the_end_of_a_with_block():
    with Doubler() as session:
        assert not session.closed
    assert session.closed


def test_precision_built_is_a_copy():
    session = Doubler()
    session.precision_built().clear()
    assert session.precision_built() == {"fp32": 1}


@pytest.mark.parametrize(
    ("shape", "fits"), [((1, 2), True), ((9, 2), True), ((1, 3), False), ((2,), False), ((1, 2, 1), False)]
)
def test_spec_admits_shapes_by_rank_and_fixed_axes(shape, fits):
    assert TensorSpec("x", (None, 2), "float32").admits(shape) is fits


def test_backends_are_found_by_walking_the_package():
    assert "ort" in backend_names()
    assert backend("ort").name == "ort"


def test_unknown_backend_names_the_nearest():
    with pytest.raises(KdedgeError, match="unknown backend 'orrt': did you mean 'ort'"):
        backend("orrt")


def test_two_backends_of_one_name_are_a_bug():
    backend_names()
    with pytest.raises(ValueError, match="two backends are called 'ort'"):
        register(type("Other", (Backend,), {"name": "ort"}))


def test_unknown_option_names_the_nearest():
    with pytest.raises(KdedgeError, match="unknown option 'thread' of backend ort: did you mean 'threads'"):
        backend("ort").settings({"thread": 2})
