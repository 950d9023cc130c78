"""Several teachers: who is asked, and whom a method learns from."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from trainings import assert_same_weights, known, weights

from kdedge.core.errors import ModelError
from kdedge.core.recipe import Normalize
from kdedge.data.sets import Dataset
from kdedge.distill.base import Method, MethodConfig, Network, Step, View
from kdedge.distill.job import Job
from kdedge.distill.teachers import FrozenTeacher, Staff, mean_answer
from kdedge.distill.trainer import train
from kdedge.models.zoo import build_model

MakeJob = Callable[..., Job]
NOTED: list[tuple[Tensor, View]] = []


class Asked(Method):
    """Notes what its teacher answered."""

    Config = MethodConfig

    def __init__(self, config: MethodConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)

    def loss(self, step: Step) -> dict[str, Tensor]:
        assert step.teacher is not None
        NOTED.append((step.indices.clone(), View(step.teacher.logits.clone(), dict(step.teacher.features))))
        return {"asked/none": 0 * step.student.logits.sum()}


class Looked(Asked):
    """Asks for the teacher's first stage as well."""

    def __init__(self, config: MethodConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        assert teacher is not None
        self.teacher_features = (next(iter(teacher.features)),)


@pytest.fixture(autouse=True)
def noting() -> Iterator[None]:
    NOTED.clear()
    yield from known(asked=Asked, looked=Looked)


@pytest.fixture
def teachers(dataset: Dataset) -> tuple[FrozenTeacher, FrozenTeacher]:
    """Of different kinds, each with a normalization of its own."""
    torch.manual_seed(7)
    kinds, means = ("resnet8", "vgg8"), (0.1, 0.6)
    first, second = (
        FrozenTeacher(build_model(kind, {}, 4, dataset.image_shape), Normalize(mean=(mean,), std=(0.5,)))
        for kind, mean in zip(kinds, means, strict=True)
    )
    return first, second


def counted(teacher: FrozenTeacher) -> list[int]:
    calls: list[int] = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    return calls


def pixels(dataset: Dataset) -> Tensor:
    images: Tensor = dataset.train.images[NOTED[0][0]]
    return images


@pytest.mark.parametrize("number", [0, 1])
def test_method_learns_from_the_teacher_it_names_and_the_other_is_not_asked(
    make_job: MakeJob, dataset: Dataset, teachers: tuple[FrozenTeacher, FrozenTeacher], number: int
) -> None:
    calls = [counted(teacher) for teacher in teachers]
    train(make_job({"epochs": 1, "methods": [{"name": "asked", "teacher": number}]}, teachers=teachers))
    assert [bool(each) for each in calls] == [number == 0, number == 1]
    torch.testing.assert_close(NOTED[0][1].logits, teachers[number](pixels(dataset)), rtol=1e-4, atol=1e-5)


def test_method_learns_from_the_mean_of_all_teachers(
    make_job: MakeJob, dataset: Dataset, teachers: tuple[FrozenTeacher, FrozenTeacher]
) -> None:
    train(make_job({"epochs": 1, "methods": [{"name": "asked", "teacher": "mean"}]}, teachers=teachers))
    expected = (teachers[0](pixels(dataset)) + teachers[1](pixels(dataset))) / 2
    torch.testing.assert_close(NOTED[0][1].logits, expected, rtol=1e-4, atol=1e-5)
    assert not NOTED[0][1].features


def test_methods_of_a_phase_learn_from_different_teachers(
    make_job: MakeJob, dataset: Dataset, teachers: tuple[FrozenTeacher, FrozenTeacher]
) -> None:
    methods = [{"name": "asked", "teacher": 0}, {"name": "looked", "teacher": 1}]
    train(make_job({"epochs": 1, "methods": methods}, teachers=teachers))
    images = pixels(dataset)
    for (_, view), teacher in zip(NOTED[:2], teachers, strict=True):
        torch.testing.assert_close(view.logits, teacher(images), rtol=1e-4, atol=1e-5)
    [feature] = NOTED[1][1].features.values()
    first = next(iter(teachers[1].model.feature_points.values()))
    assert feature.shape[1] == first.channels


@pytest.mark.parametrize("teacher", [0, 1, "mean"])
def test_student_learns_from_any_of_several_teachers_and_they_are_not_changed(
    make_job: MakeJob, teachers: tuple[FrozenTeacher, FrozenTeacher], teacher: Any
) -> None:
    before = [weights(each.model) for each in teachers]
    job = make_job({"epochs": 1, "methods": [{"name": "logits", "teacher": teacher}]}, teachers=teachers)
    start = weights(job.student)
    train(job)
    assert not torch.equal(job.student.linear.weight, start["linear.weight"])
    for each, kept in zip(teachers, before, strict=True):
        assert_same_weights(each.model.state_dict(), kept)
        assert not any(module._forward_hooks for module in each.model.modules())


def test_students_of_different_teachers_differ(
    make_job: MakeJob, teachers: tuple[FrozenTeacher, FrozenTeacher], tmp_path: Any
) -> None:
    found = set()
    for teacher in (0, 1, "mean"):
        phase = {"epochs": 1, "methods": [{"name": "logits", "teacher": teacher}]}
        job = make_job(phase, teachers=teachers, folder=tmp_path / str(teacher))
        train(job)
        found.add(job.student.linear.weight.detach().numpy().tobytes())
    assert len(found) == 3


def refusal(job: Job) -> str:
    with pytest.raises(ModelError) as caught:
        train(job)
    return str(caught.value)


def test_method_must_say_which_of_several_teachers_it_learns_from(
    make_job: MakeJob, teachers: tuple[FrozenTeacher, FrozenTeacher]
) -> None:
    said = refusal(make_job({"epochs": 1, "methods": [{"name": "logits"}]}, teachers=teachers))
    assert said == ("method 'logits' must say which of the 2 teachers it learns from\n  teacher: 0, or teacher: mean")


def test_method_that_looks_at_features_does_not_learn_from_the_mean(
    make_job: MakeJob, teachers: tuple[FrozenTeacher, FrozenTeacher]
) -> None:
    use = {"name": "looked", "teacher": "mean"}
    assert refusal(make_job({"epochs": 1, "methods": [use]}, teachers=teachers)) == (
        "method 'looked' cannot learn from the mean: it looks at features, and several teachers have no mean of those\n"
        "  teacher: 0"
    )


def test_method_without_a_teacher_is_refused(make_job: MakeJob) -> None:
    said = refusal(make_job({"epochs": 1, "methods": [{"name": "logits"}]}))
    assert said.splitlines()[0] == "method 'logits' needs a teacher: the recipe has none"


def test_only_teacher_need_not_be_named(make_job: MakeJob, teacher: FrozenTeacher) -> None:
    train(make_job({"epochs": 1, "methods": [{"name": "asked"}]}, teachers=(teacher,)))
    assert NOTED


def test_staff_answers_for_each_teacher_that_is_listened_to(
    dataset: Dataset, teachers: tuple[FrozenTeacher, FrozenTeacher]
) -> None:
    points = dict(list(teachers[1].model.feature_points.items())[:1])
    images = dataset.train.images[:4]
    with Staff(teachers, [None, points]) as staff:
        silent, answer = staff.ask(images, dataset.train.indices[:4], epoch=0)
    assert silent is None
    assert answer is not None
    torch.testing.assert_close(answer[0], teachers[1](images))
    assert list(answer[1]) == list(points)
    assert not any(module._forward_hooks for module in teachers[1].model.modules())


def test_mean_answer_by_hand() -> None:
    answers = [(torch.tensor([[1.0, 5.0]]), {"stage1": torch.ones(1)}), None, (torch.tensor([[3.0, 1.0]]), {})]
    logits, features = mean_answer(answers)
    assert logits.tolist() == [[2.0, 3.0]]
    assert features == {}
