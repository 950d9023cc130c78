"""What a method takes over from the phase before, and what it is shown before its first step."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from trainings import PLAIN, STILL, assert_same_weights, known, left, train_until, weights

from kdedge.distill.base import Method, MethodConfig, Network, Step, View
from kdedge.distill.begin import hand_on
from kdedge.distill.job import Job
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import train

MakeJob = Callable[..., Job]


class CalibratedConfig(MethodConfig):
    width: int = 1
    """Of its layer."""
    batches: int = 2
    """To be shown."""


class Calibrated(Method):
    """Keeps the mean of what it is shown, how often that was, and how many steps it took; has a layer of its own."""

    Config = CalibratedConfig
    needs_teacher = False
    mean: Tensor
    shown: Tensor
    steps: Tensor

    def __init__(self, config: CalibratedConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        self.student_features, self.calibration_batches = ("stage2",), config.batches
        self.layer = nn.Linear(8, config.width)
        for name, value in (("mean", torch.zeros(8)), ("shown", torch.tensor(0)), ("steps", torch.tensor(0))):
            self.register_buffer(name, value)

    def prepare(self, views: Iterable[tuple[View, View | None]]) -> None:
        maps = []
        for student, teacher in views:
            assert teacher is None
            assert not student.logits.requires_grad
            maps.append(student.features["stage2"])
        self.mean.copy_(torch.cat(maps).mean(dim=(0, 2, 3)))
        self.shown += len(maps)

    def loss(self, step: Step) -> dict[str, Tensor]:
        self.steps += 1
        gap = step.student.features["stage2"].mean(dim=(2, 3)) - self.mean
        return {f"{self.name()}/gap": self.layer(gap).square().mean()}

    @classmethod
    def name(cls) -> str:
        return cls.__name__.lower()


class Second(Calibrated):
    pass


class Listening(Calibrated):
    """Is shown what the teacher answers as well."""

    needs_teacher = True

    def prepare(self, views: Iterable[tuple[View, View | None]]) -> None:
        for _, teacher in views:
            assert teacher is not None
            self.mean += teacher.logits.mean()
            self.shown += 1


@pytest.fixture(autouse=True)
def methods() -> Iterator[None]:
    yield from known(calibrated=Calibrated, second=Second, listening=Listening)


def uses(name: str = "calibrated", **options: int) -> dict[str, object]:
    return {"methods": [{"name": name, "options": options}]}


def kept(job: Job) -> dict[str, Tensor]:
    return load_file(job.folder / "methods.safetensors")


def layers(**methods: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(methods)


def test_hand_on_gives_layers_and_buffers_to_the_method_of_the_same_name() -> None:
    trained, methods = layers(a=nn.BatchNorm2d(3), b=nn.Linear(2, 2)), layers(a=nn.BatchNorm2d(3), c=nn.Linear(2, 2))
    trained["a"].running_mean.fill_(5.0)
    before = weights(methods["c"])
    assert hand_on(methods, trained.state_dict(), "student") == {"a"}
    assert_same_weights(methods["a"].state_dict(), trained["a"].state_dict())
    assert_same_weights(methods["c"].state_dict(), before)


def test_hand_on_leaves_layers_of_another_shape_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    methods = layers(a=nn.Linear(2, 3))
    before = weights(methods)
    assert hand_on(methods, layers(a=nn.Linear(2, 2)).state_dict(), "student resnet8") == set()
    assert_same_weights(methods.state_dict(), before)
    said = " ".join("".join(capfd.readouterr()).split())
    assert said == "student resnet8: a starts afresh, since its layers are not those of the phase before"


def test_hand_on_does_not_take_a_name_for_the_start_of_another() -> None:
    methods = layers(fsp=nn.Linear(2, 2))
    before = weights(methods)
    assert not hand_on(methods, layers(fsp2=nn.Linear(2, 2)).state_dict(), "student")
    assert_same_weights(methods.state_dict(), before)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_method_goes_on_with_the_layers_and_buffers_of_the_phase_before(
    make_job: MakeJob, tmp_path: Path, ema: float | None
) -> None:
    """The averages where they were kept; the second phase moves no weight."""
    first = {"epochs": 2, "ema": ema, **uses()}
    one = make_job(first, folder=tmp_path / "one")
    two = make_job(first, {"epochs": 1, "optimizer": STILL, **uses()}, folder=tmp_path / "two")
    train(one)
    train(two)
    before, after = kept(one), kept(two)
    assert before.pop("calibrated.steps") != after.pop("calibrated.steps")
    assert_same_weights(after, before)


def test_method_goes_on_from_what_it_has_counted(make_job: MakeJob) -> None:
    job = make_job({"epochs": 2, **uses()}, {"epochs": 1, **uses()})
    train(job)
    assert kept(job)["calibrated.steps"] == 12  # four an epoch


def test_method_of_other_layers_starts_afresh(make_job: MakeJob, capfd: pytest.CaptureFixture[str]) -> None:
    job = make_job({"epochs": 1, **uses(width=1)}, {"epochs": 1, **uses(width=3)})
    train(job)
    assert kept(job)["calibrated.layer.weight"].shape == (3, 8)
    assert kept(job)["calibrated.steps"] == 4
    assert kept(job)["calibrated.shown"] == 2
    said = " ".join("".join(capfd.readouterr()).split())
    assert "student: calibrated starts afresh, since its layers are not those of the phase before" in said


def test_method_that_the_phase_before_has_not_starts_afresh(make_job: MakeJob) -> None:
    job = make_job({"epochs": 1, **uses()}, {"epochs": 1}, {"epochs": 1, **uses()})
    train(job)
    assert kept(job)["calibrated.steps"] == 4


def test_method_is_shown_as_many_batches_as_it_asks_for_once(make_job: MakeJob) -> None:
    job = make_job({"epochs": 2, **uses(batches=3)}, {"epochs": 2, **uses(batches=3)})
    train(job)
    assert kept(job)["calibrated.shown"] == 3


def test_methods_are_each_shown_as_many_batches_as_they_ask_for(make_job: MakeJob) -> None:
    """The first ones of an epoch of four."""
    methods = [{"name": name, "options": {"batches": count}} for name, count in (("calibrated", 3), ("second", 2))]
    job = make_job({"epochs": 1, "methods": methods})
    train(job)
    assert (kept(job)["calibrated.shown"], kept(job)["second.shown"]) == (3, 2)


def test_method_is_shown_what_the_untrained_student_makes_in_eval_mode(
    make_job: MakeJob, small: Callable[[], nn.Module]
) -> None:
    """Four batches of an epoch are all of the training images."""
    job = make_job({"epochs": 1, "optimizer": {"lr": 0.1, **PLAIN}, **uses(batches=4)})
    images = (job.dataset.train.images.float() / 255 - 0.5) / 0.25
    twin = small().eval()
    expected = twin.stage2(twin.stage1(images)).mean(dim=(0, 2, 3)).detach()
    train(job)
    torch.testing.assert_close(kept(job)["calibrated.mean"], expected, rtol=1e-4, atol=1e-5)


def test_method_that_is_shown_images_does_not_change_what_the_student_starts_from(
    make_job: MakeJob, tmp_path: Path
) -> None:
    """The same weights with and without: batch norms, random state and the order of the images are left alone."""
    without = {"terms": {"*": {"weight": 0}}}
    jobs = [
        make_job(
            {"epochs": 1, "methods": [{"name": "calibrated", "options": {"batches": count}, **without}]},
            folder=tmp_path / str(count),
        )
        for count in (0, 3)
    ]
    for job in jobs:
        train(job)
    assert_same_weights(jobs[1].student.state_dict(), weights(jobs[0].student))


def test_method_is_shown_what_its_teacher_answers(make_job: MakeJob, teacher: FrozenTeacher) -> None:
    calls: list[int] = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    job = make_job({"epochs": 1, **uses("listening", batches=2)}, teachers=(teacher,))
    train(job)
    assert len(calls) == 2 + 4
    assert kept(job)["listening.shown"] == 2
    assert kept(job)["listening.mean"].any()


@pytest.mark.parametrize("step", [2, 6, 8, 10], ids=["epoch 1", "epoch 2", "between the phases", "phase 2"])
def test_interrupted_training_of_a_calibrated_method_ends_in_the_same_bytes(
    make_job: MakeJob, tmp_path: Path, step: int
) -> None:
    def job(folder: str) -> Job:
        return make_job(
            {"epochs": 2, "ema": 0.9, **uses()}, {"epochs": 2, **uses()}, {"epochs": 1}, folder=tmp_path / folder
        )

    whole, halves = job("whole"), job("halves")
    train(whole)
    train_until(halves, step)
    train(job("halves"))
    assert left(halves) == left(whole)
