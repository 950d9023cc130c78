"""Phases that train for int8, as recipes have them."""

from pathlib import Path
from typing import Any

import pytest

from kdedge.core.errors import RecipeError
from kdedge.core.load import load_recipe
from kdedge.core.recipe import Recipe
from kdedge.core.training import Phase, Quantize

RECIPE = """\
version: 1
data: {name: digits}
student: {name: resnet8}
phases:
  - {epochs: 2}
  - {epochs: 1, quantize: {}}
"""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return lambda *changes: load_recipe(str(path), changes).recipe


def test_phase_with_an_empty_section_is_for_int8_as_onnxruntime_wants_it(load: Any) -> None:
    recipe = load()
    assert [phase.quantize for phase in recipe.phases] == [None, Quantize()]
    assert (recipe.phases[1].quantize.activations, recipe.phases[1].quantize.symmetric) == ("uint8", False)


def test_phase_without_one_is_written_as_it_always_was() -> None:
    """The hash of a run is made of this: trainings from before must be found again."""
    plain = Phase(epochs=1).model_dump(mode="json")
    assert list(plain) == ["epochs", "batch", "cross_entropy", "methods", "freeze", "optimizer", "ema"]


def test_saved_recipe_is_read_again(load: Any) -> None:
    assert Recipe.model_validate_json(load().model_dump_json()) == load()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("phases.1.ema=0.9", "quantize and ema: a phase takes one of them"),
        ("phases.0.quantize={}", None),
        ("run.compile=true", "run.compile and a phase with quantize: not both"),
        ("phases=[{epochs: 1, quantize: {}}, {epochs: 1}]", "a phase after one with quantize undoes what that trained"),
        ("teachers=[{name: resnet8, training: {epochs: 1, quantize: {}}}]", "it is the student that is made int8"),
        ("phases.1.quantize.bits=4", "unknown key"),
        ("phases.1.quantize.activations=uint4", "must be 'uint8' or 'int8'"),
        ("phases.1.quantize.calibration_batches=0", "must be at least 1, not 0"),
        ("export.quantization.activations=aut", "did you mean 'auto'"),
        ("export.quantization.cpu=riscv", "must be 'host', 'x86', 'x86_vnni' or 'arm'"),
        ("export.tolerance.int8.extra_drop=2", "must be at most 1, not 2"),
    ],
)
def test_what_a_recipe_may_ask_for(load: Any, change: str, problem: str | None) -> None:
    if problem is None:
        load(change)
        return
    with pytest.raises(RecipeError) as caught:
        load(change)
    assert problem in str(caught.value)
