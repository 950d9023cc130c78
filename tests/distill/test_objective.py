import math
from collections.abc import Callable

import pytest
import torch
from fivelevels import FiveLevels
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse, Phase
from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Step
from kdedge.distill.objective import Objective, build_methods
from kdedge.models.features import feature_points

SHAPE = (1, 8, 8)


class Two(Method):
    """Two terms, of 2 and of the number that its one parameter holds."""

    Config = MethodConfig
    needs_teacher = False

    def __init__(self, config: MethodConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        self.student_features = ("stage2",)
        self.own = nn.Parameter(torch.tensor(3.0))

    def loss(self, step: Step) -> dict[str, Tensor]:
        assert step.student.features["stage2"].shape[1:] == (8, 4, 4)
        return {"two/fixed": torch.tensor(2.0), "two/own": self.own}


def network(small: Callable[[], nn.Module]) -> tuple[nn.Module, Network]:
    student = small()
    return student, Network(feature_points(student, SHAPE), 4, 8)


def objective(small: Callable[[], nn.Module], **phase: object) -> Objective:
    student, known = network(small)
    described = Phase.model_validate({"epochs": 1, **phase})
    methods: dict[str, Method] = {use.name: Two(MethodConfig(), known, None) for use in described.methods}
    return Objective(student, methods, described, known)


def run(objective: Objective, progress: float = 0.0) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    with objective:
        return objective(torch.randn(8, *SHAPE), torch.arange(8) % 4, torch.arange(8), [], 0, progress)


def test_objective_is_the_weighed_sum_of_its_terms(small: Callable[[], nn.Module]) -> None:
    one = objective(small, cross_entropy={"weight": 0.5}, methods=[{"name": "two", "weight": 10}])
    total, terms, _ = run(one)
    assert list(terms) == ["cross_entropy", "two/fixed", "two/own"]
    assert total.item() == pytest.approx(0.5 * terms["cross_entropy"].item() + 10 * (2 + 3))


def test_objective_cross_entropy_of_an_undecided_student_is_the_logarithm_of_the_classes(
    small: Callable[[], nn.Module],
) -> None:
    one = objective(small)
    with torch.no_grad():
        one.student.linear.weight.zero_()
        one.student.linear.bias.zero_()
    _, terms, right = run(one)
    assert terms["cross_entropy"].item() == pytest.approx(math.log(4))
    assert right.item() == 2  # every answer is class 0, which two of the eight images have


def test_objective_weights_follow_their_schedules(small: Callable[[], nn.Module]) -> None:
    two = {"name": "two", "weight": 4, "schedule": {"start": 0.5}}
    one = objective(small, cross_entropy={"schedule": {"end": 0.5, "warmup": 0.5}}, methods=[two])
    assert one.weights(["cross_entropy", "two/own"], 0.25) == {"cross_entropy": 0.5, "two/own": 0}
    assert one.weights(["cross_entropy", "two/own"], 0.75) == {"cross_entropy": 0, "two/own": 4}


def test_objective_term_has_its_own_weight_and_schedule_times_the_methods(small: Callable[[], nn.Module]) -> None:
    terms = {"own": {"weight": 3, "schedule": {"decay_at": [0.3, 0.8], "decay": 0.9}}}
    one = objective(small, methods=[{"name": "two", "weight": 2, "terms": terms}])
    at = [one.weights(["two/fixed", "two/own"], progress) for progress in (0, 0.5, 0.9)]
    assert [weights["two/fixed"] for weights in at] == [2, 2, 2]
    assert [weights["two/own"] for weights in at] == pytest.approx([6, 6 * 0.9, 6 * 0.81])


def test_objective_refuses_a_term_that_the_method_has_not(small: Callable[[], nn.Module]) -> None:
    with pytest.raises(ModelError, match="method 'two' has no term 'onw': did you mean 'own'"):
        run(objective(small, methods=[{"name": "two", "terms": {"onw": {"weight": 1}}}]))


def test_objective_trains_student_and_methods(small: Callable[[], nn.Module]) -> None:
    one = objective(small, methods=[{"name": "two", "weight": 10}])
    total, _, _ = run(one)
    total.backward()
    assert one.methods["two"].own.grad.item() == pytest.approx(10)
    assert all(p.grad is not None for p in one.student.parameters())


def test_objective_taps_the_student_only_inside_its_block(small: Callable[[], nn.Module]) -> None:
    one = objective(small, methods=[{"name": "two"}])
    run(one)
    assert not any(module._forward_hooks for module in one.student.modules())


def test_objective_smooths_labels(small: Callable[[], nn.Module]) -> None:
    one = objective(small, cross_entropy={"label_smoothing": 1.0})
    one.eval()
    with one:
        logits = one.student(torch.ones(4, *SHAPE))
        _, terms, _ = one(torch.ones(4, *SHAPE), torch.arange(4), torch.arange(4), None, 0, 0.0)
    assert terms["cross_entropy"].item() == pytest.approx(-logits.log_softmax(1).mean().item(), rel=1e-5)


def test_build_methods_reads_their_options(small: Callable[[], nn.Module]) -> None:
    _, known = network(small)
    built = build_methods([MethodUse(name="logits", options={"temperature": 2})], known, [known])
    assert built["logits"].config.temperature == 2


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (MethodUse(name="logits"), "method 'logits' needs a teacher"),
        (MethodUse(name="self_distill", options={"alfa": 1}), "options of method 'self_distill'"),
    ],
)
def test_build_methods_says_what_is_wrong(use: MethodUse, message: str, small: Callable[[], nn.Module]) -> None:
    _, known = network(small)
    with pytest.raises(ModelError, match=message):
        build_methods([use], known, [])


@pytest.mark.parametrize(
    ("name", "task", "kind", "student", "able"),
    [("logits", "detect", "classifiers", "detector", "pkd"), ("fgd", "classify", "detectors", "classifier", "dkd")],
)
def test_build_methods_refuses_a_method_for_another_task(
    name: str, task: str, kind: str, student: str, able: str, small: Callable[[], nn.Module]
) -> None:
    known = FiveLevels(4).network() if task == "detect" else network(small)[1]
    with pytest.raises(ModelError) as caught:
        build_methods([MethodUse(name=name)], known, [known])
    first, fix = str(caught.value).splitlines()
    assert first == f"method {name!r} is for {kind}: the student is a {student}"
    choices = fix.strip().removeprefix("choose one of: ").split(", ")
    assert {able, "attention", "mkd"} <= set(choices)
    assert name not in choices


def test_methods_are_found_in_their_package() -> None:
    assert {"attention", "logits", "self_distill"} <= set(METHODS.names())
