"""What the items of --methods stand for."""

from pathlib import Path

import pytest

from kdedge.bench.contenders import LABELS, STANDARDIZED, contender, share_out, tuning
from kdedge.core.errors import KdedgeError
from kdedge.core.recipe import Recipe
from kdedge.core.training import MethodUse, Schedule

OTHER = """\
version: 1
data: {name: digits}
student: {name: resnet20}
peers: [{name: resnet14}]
teachers: [{name: resnet20, training: {epochs: 1}}]
phases:
  - {epochs: 30, batch: 8, freeze: ["*"], cross_entropy: {weight: 0}, methods: [{name: attention}]}
  - {epochs: 60, batch: 8, optimizer: {lr: 0.3}, methods: [{name: logits, weight: 3}, {name: dml}]}
"""


@pytest.fixture
def base() -> Recipe:
    phase = {
        "epochs": 9,
        "batch": 64,
        "optimizer": {"lr": 0.05},
        "cross_entropy": {"weight": 0.2, "label_smoothing": 0.1},
        "methods": [{"name": "rkd"}],
    }
    teacher = {"name": "resnet20", "training": {"epochs": 1}}
    return Recipe.model_validate(
        {
            "version": 1, "name": "base", "data": {"name": "digits"}, "student": {"name": "resnet8"},
            "teachers": [teacher], "phases": [phase],
        }
    )  # fmt: skip


def test_labels_has_no_methods_and_the_whole_weight_on_the_labels(base: Recipe) -> None:
    [phase] = contender(LABELS, base).phases
    assert (phase.methods, phase.cross_entropy.weight, phase.cross_entropy.label_smoothing) == ((), 1.0, 0.1)
    assert (phase.epochs, phase.batch, phase.optimizer.lr) == (9, 64, 0.05)


def test_method_alone_stands_beside_the_labels_as_it_is(base: Recipe) -> None:
    [phase] = contender("dkd", base).phases
    assert phase.methods == (MethodUse(name="dkd"),)
    assert phase.cross_entropy.weight == 1.0


def test_preset_brings_its_weights_and_options(base: Recipe) -> None:
    [phase] = contender(STANDARDIZED, base).phases
    [use] = phase.methods
    assert (use.weight, use.options) == (9.0, {"temperature": 2.0, "standardize": True})
    assert (phase.cross_entropy.weight, phase.cross_entropy.label_smoothing) == (0.1, 0.1)
    [rkd] = contender("rkd:benchmark", base).phases[0].methods
    assert {pattern: term.weight for pattern, term in rkd.terms.items()} == {"distance": 25.0, "angle": 50.0}


def test_method_among_peers_gets_one_like_the_student(base: Recipe) -> None:
    assert contender("dml", base).peers == (base.student,)
    assert contender("dkd", base).peers == ()


def test_recipe_gives_phases_and_peers_within_the_epochs_and_by_the_optimizer_of_the_base(
    base: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "other.yaml").write_text(OTHER)
    found = contender(f"recipe:{tmp_path / 'other.yaml'}", base)
    assert [phase.epochs for phase in found.phases] == [3, 6]
    assert [peer.name for peer in found.peers] == ["resnet14"]
    first, second = found.phases
    assert (first.freeze, first.cross_entropy.weight, first.methods[0].name) == (("*",), 0.0, "attention")
    assert (second.freeze, [use.name for use in second.methods]) == ((), ["logits", "dml"])
    for phase in found.phases:
        assert (phase.batch, phase.optimizer, phase.cross_entropy.label_smoothing) == (
            64,
            base.phases[0].optimizer,
            0.1,
        )


@pytest.mark.parametrize(
    ("parts", "total", "shares"),
    [([100, 200], 10, [3, 7]), ([1, 1], 4, [2, 2]), ([1, 500], 10, [1, 9]), ([500, 1], 10, [9, 1]), ([7], 3, [3])],
)
def test_epochs_are_shared_out_in_proportion_and_each_phase_has_one(
    parts: list[int], total: int, shares: list[int]
) -> None:
    assert share_out("recipe:x", parts, total) == shares


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("dkdd", "unknown method 'dkdd': did you mean 'dkd'?\n  kdedge methods"),
        ("logits:standardised", "method 'logits' has no preset 'standardised': did you mean 'standardized'?"),
        ("recipe:quickstrat", "no recipe 'quickstrat': did you mean 'quickstart'?\n  kdedge ls"),
    ],
)
def test_what_there_is_not_is_refused(base: Recipe, item: str, said: str) -> None:
    with pytest.raises(KdedgeError) as raised:
        contender(item, base)
    assert str(raised.value) == said


def test_recipe_of_more_phases_than_epochs_is_refused() -> None:
    with pytest.raises(KdedgeError, match="recipe:x has 3 phases: 2 epochs are too few"):
        share_out("recipe:x", [1, 1, 1], 2)


def test_kd_is_tuned_over_temperatures_and_weights(base: Recipe) -> None:
    found = tuning(base)
    assert len({each.run_name for each in found}) == len(found) == 6
    uses = [(each.phases[0].methods[0], each.phases[0].cross_entropy.weight) for each in found]
    assert {(use.options["temperature"], use.weight, labels) for use, labels in uses} >= {(2, 0.9, 0.1), (4, 4, 0.1)}
    assert all(use.schedule == Schedule() for use, _ in uses)
