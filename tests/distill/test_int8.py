"""A student that computes as int8 will: what is rounded and how, by hand, and what of it a training leaves."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from trainings import assert_same_weights, left, train_until, weights

from kdedge.core.errors import MissingTool
from kdedge.core.training import Quantize
from kdedge.distill.int8 import FakeInt8, learned_ranges
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import PhaseRun, train

QUANTIZED = {"epochs": 2, "optimizer": {"lr": 0.05}, "quantize": {"calibration_batches": 2}}


class One(nn.Module):
    """One fully connected layer without a bias."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.linear = nn.Linear(len(weights), 1, bias=False)
        self.linear.weight.data = torch.tensor([weights])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images)


def calibrated(student: nn.Module, seen: list[list[float]], **how: object) -> FakeInt8:
    fake = FakeInt8(student, Quantize.model_validate(how))
    fake.calibrate([torch.tensor(seen)])
    return fake.eval()


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        # Weights in steps of 1.27 / 127 = 0.01: 1.27 and 0.  Inputs in steps of 2.55 / 255 = 0.01: 1.00 and 0.50.
        ({}, 1.27 * 1.00),
        # In steps of 1.27 / 64 = 0.01984: 1.27 and 0.
        ({"reduce_range": True}, 1.27 * 1.00),
        # Inputs in steps of 2.55 / 127 = 0.02008: 50 of them are 1.0039.
        ({"activations": "int8", "symmetric": True}, 1.27 * 1.00394),
    ],
)
def test_weights_and_inputs_are_rounded_by_hand(how: dict[str, object], answer: float) -> None:
    fake = calibrated(One(1.27, 0.004), [[0.0, 2.55]], **how)
    assert fake(torch.tensor([[1.004, 0.5]])).item() == pytest.approx(answer, abs=1e-4)


def test_weights_of_7_bits_have_half_the_steps() -> None:
    """In steps of 1.28 / 64 = 0.02 the second weight is 0.02, in steps of 1.28 / 127 = 0.01008 it is 0.03024."""
    for reduce_range, answer in ((True, 0.02), (False, 0.03024)):
        fake = calibrated(One(1.28, 0.0295), [[0.0, 2.55]], reduce_range=reduce_range)
        assert fake(torch.tensor([[0.0, 1.0]])).item() == pytest.approx(answer, abs=1e-4)


def test_gradients_pass_the_rounding() -> None:
    student = One(1.27, 0.004)
    calibrated(student, [[0.0, 2.55]])(torch.tensor([[1.004, 0.5]])).sum().backward()
    torch.testing.assert_close(student.linear.weight.grad, torch.tensor([[1.0, 0.5]]))


def test_student_itself_is_left_as_it_is() -> None:
    student = One(1.27, 0.004)
    before = weights(student)
    fake = calibrated(student, [[0.0, 2.55]])
    fake(torch.tensor([[1.004, 0.5]]))
    assert_same_weights(weights(student), before)
    assert student(torch.tensor([[1.004, 0.5]])).item() == pytest.approx(1.27 * 1.004 + 0.004 * 0.5)
    assert list(fake.parameters()) == []


class Tied(nn.Module):
    """One layer called by keyword and twice, another with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.one.weight = self.other.weight = nn.Parameter(torch.tensor([[1.27, 0.004], [0.0, 1.27]]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.other(self.one(input=self.one(images)))


def test_layers_may_share_weights_and_be_called_twice_or_by_keyword() -> None:
    student = Tied()
    fake = calibrated(student, [[2.0, 0.0]])
    # Weights are rounded to 1.27 and 0.  The one takes 2 and 2.54 in turn: its range ends at 2 + 0.05 x 0.54 = 2.027;
    # so 2.00 -> 2.54, cut to 2.027 -> 2.574, of which the other's steps of 3.2258 / 255 make 2.568 -> 3.261.
    found = fake(torch.tensor([[2.0, 0.0]]))
    assert found.tolist() == [[pytest.approx(3.261, rel=1e-3), 0.0]]
    found.sum().backward()
    assert student.one.weight.grad is not None
    assert learned_ranges(fake.state_dict()).keys() == {"one", "other"}


def test_training_moves_ranges_and_evaluation_does_not() -> None:
    fake = calibrated(One(1.27, 0.004), [[0.0, 2.55]])
    fake(torch.tensor([[0.0, 20.0]]))
    assert learned_ranges(fake.state_dict())["linear"] == (0.0, pytest.approx(2.55))
    fake.train()(torch.tensor([[0.0, 20.0]]))
    assert learned_ranges(fake.state_dict())["linear"] == (0.0, pytest.approx(2.55 + 0.05 * (20 - 2.55)))


def test_batch_norms_keep_their_statistics(small: Callable[[], nn.Module]) -> None:
    student = small()
    fake = FakeInt8(student, Quantize())
    fake.calibrate([torch.randn(4, 1, 8, 8)])
    before = weights(student)
    fake.train()(torch.randn(4, 1, 8, 8))
    assert student.stage1.training
    assert_same_weights(weights(student), before)


def test_state_makes_another_one_compute_the_same(small: Callable[[], nn.Module]) -> None:
    student, images = small(), torch.randn(4, 1, 8, 8)
    one, other = FakeInt8(student, Quantize()), FakeInt8(student, Quantize())
    one.calibrate([images])
    one.train()(images)
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    assert torch.equal(one.eval()(images), other.eval()(images))


def test_phase_for_int8_goes_on_as_if_it_had_not_been_interrupted(
    make_job: Callable[..., Job], small: Callable[[], nn.Module], tmp_path: object, teacher: FrozenTeacher
) -> None:
    phases = ({"epochs": 1}, QUANTIZED | {"methods": [{"name": "logits"}]})  # 4 steps an epoch
    whole = make_job(*phases, teachers=(teacher,))
    train(whole)
    again = make_job(*phases, teachers=(teacher,), folder=whole.folder.with_name("again"))
    train_until(again, step=9)  # in the second epoch for int8
    train(replace(again, student=small()))
    assert left(again) == left(whole)
    assert (again.folder / "int8.json").read_bytes() == (whole.folder / "int8.json").read_bytes()
    assert json.loads((whole.folder / "int8.json").read_text()).keys() == {"stage1", "stage2.0", "linear"}


def test_teacher_goes_on_teaching_by_features_and_logits(make_job: Callable[..., Job], teacher: FrozenTeacher) -> None:
    methods = [{"name": "logits"}, {"name": "attention", "options": {"stages": [["stage2", "stage2"]]}}]
    job = make_job(QUANTIZED | {"epochs": 1, "methods": methods}, teachers=(teacher,))
    train(job)
    header, row = (line.split(",") for line in (job.folder / "log.csv").read_text().splitlines())
    logged = dict(zip(header, row, strict=True))
    assert float(logged["logits/kd"]) > 0
    assert float(logged["attention/stage2"]) > 0


def test_training_without_quantize_leaves_no_ranges(make_job: Callable[..., Job]) -> None:
    job = make_job({"epochs": 1})
    train(job)
    assert not (job.folder / "int8.json").exists()


def test_validation_is_of_the_student_as_int8_computes_it(make_job: Callable[..., Job]) -> None:
    job = make_job(QUANTIZED)
    run = PhaseRun(make_fabric(job.run), job, 0, 0, None, None)
    assert isinstance(run.objective.trained, FakeInt8)
    with run.objective:
        before = run.validate()
        for fake in run.objective.trained.inputs.values():
            fake.scale.fill_(1e6)  # everything is rounded to 0
            fake.zero_point.zero_()
        assert run.validate() == 0.25 != before  # one class for all


def test_missing_torchao_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization.pt2e", None)
    with pytest.raises(MissingTool, match="torchao is not installed: a phase with quantize needs it") as caught:
        FakeInt8(One(1.0), Quantize())
    assert caught.value.fix == 'pip install "kdedge[qat]"'
