"""The loop itself, in this process: what a step does and what a phase hands on."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdedge.core.recipe import Normalize
from kdedge.data.sets import Dataset
from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Step
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.meter import TermMeter
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import PhaseRun, train
from kdedge.models.zoo import build_model

MakeJob = Callable[..., Job]
PLAIN = {"momentum": 0, "weight_decay": 0, "schedule": "constant"}


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def rows(job: Job) -> list[dict[str, str]]:
    with (job.folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def open_phase(job: Job, index: int = 0) -> PhaseRun:
    return PhaseRun(make_fabric(job.run), job, index, 0, None, None)


def take_steps(phase: PhaseRun, count: int) -> None:
    meter = TermMeter()
    with phase.objective, phase.staff() as staff:
        phase.module.train()
        for batch, _ in zip(phase.loader.epoch(0), range(count), strict=False):
            phase.step(batch, staff, 0, 0.0, meter)


def test_training_learns_and_leaves_weights_and_a_log(make_job: MakeJob, dataset: Dataset) -> None:
    job = make_job({"epochs": 8, "optimizer": {"lr": 0.2}})
    result = train(job)
    assert result.epochs == 8
    assert result.validation_accuracy > 0.6  # of four classes
    assert [row["epoch"] for row in rows(job)] == [str(epoch) for epoch in range(1, 9)]
    assert float(rows(job)[-1]["loss"]) < 0.7 * float(rows(job)[0]["loss"])
    saved = load_file(job.folder / "weights.safetensors")
    assert all(torch.equal(value, saved[key]) for key, value in job.student.state_dict().items())


def test_training_that_is_finished_is_not_repeated(make_job: MakeJob, small: Callable[[], nn.Module]) -> None:
    first = make_job({"epochs": 2})
    before = train(first)
    log = (first.folder / "log.csv").read_bytes()
    again = make_job({"epochs": 2}, student=small(3))
    assert train(again) == before
    assert (again.folder / "log.csv").read_bytes() == log
    assert all(torch.equal(value, first.student.state_dict()[key]) for key, value in again.student.state_dict().items())


def test_training_of_another_identity_starts_anew(make_job: MakeJob) -> None:
    train(make_job({"epochs": 3}))
    job = make_job({"epochs": 1}, identity="another")
    assert train(job).epochs == 1
    assert len(rows(job)) == 1


def test_longer_training_goes_on_from_the_finished_one(
    make_job: MakeJob, small: Callable[[], nn.Module], tmp_path: Path
) -> None:
    """The rate is constant, so that only the number of epochs differs; dropout draws from the random state."""

    def job_of(epochs: int, folder: str) -> Job:
        student = small()
        student.stage1 = nn.Sequential(student.stage1, nn.Dropout(0.5))
        return make_job({"epochs": epochs, "optimizer": PLAIN}, student=student, folder=tmp_path / folder)

    train(job_of(2, "in two starts"))
    job, whole = job_of(3, "in two starts"), job_of(3, "at once")
    train(job)
    train(whole)
    paths = [each.folder / "weights.safetensors" for each in (job, whole)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_step_is_one_of_gradient_descent(make_job: MakeJob) -> None:
    """One plain step on one batch against autograd by hand."""
    job = make_job({"epochs": 1, "batch": 64, "optimizer": {"lr": 0.1, **PLAIN}})
    phase = open_phase(job)
    batch = next(phase.loader.epoch(0))
    twin = make_job({"epochs": 1}).student.train()
    images = (batch.images.float() / 255 - 0.5) / 0.25
    loss = nn.functional.cross_entropy(twin(images), batch.labels)
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    expected = [p - 0.1 * g for p, g in zip(twin.parameters(), gradients, strict=True)]
    take_steps(phase, 1)
    for found, wanted in zip(job.student.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_clipped_step_is_as_long_as_rate_times_norm(make_job: MakeJob) -> None:
    job = make_job({"epochs": 1, "optimizer": {"lr": 0.5, "clip_norm": 1e-3, **PLAIN}})
    before = [p.detach().clone() for p in job.student.parameters()]
    take_steps(open_phase(job), 1)
    moved = torch.cat([(p - old).flatten() for p, old in zip(job.student.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.5 * 1e-3, rel=1e-3)


def test_moving_average_is_that_of_the_weights_after_each_step(make_job: MakeJob) -> None:
    job = make_job({"epochs": 1, "ema": 0.75})
    phase = open_phase(job)
    seen = []
    batches = phase.loader.epoch(0)
    with phase.objective, phase.staff() as staff:
        phase.module.train()
        for _ in range(3):
            phase.step(next(batches), staff, 0, 0.0, TermMeter())
            seen.append(weights(job.student))
    assert phase.average is not None
    for key, value in phase.average.module.get_submodule("student").state_dict().items():
        if value.is_floating_point():  # the first step sets it; then 3/4 of it and 1/4 of the new weights
            by_hand = 0.75 * (0.75 * seen[0][key] + 0.25 * seen[1][key]) + 0.25 * seen[2][key]
            torch.testing.assert_close(value, by_hand)


def test_moving_average_is_what_counts_and_is_handed_to_the_next_phase(make_job: MakeJob) -> None:
    one = make_job({"epochs": 2, "ema": 0.9}, folder=make_job({"epochs": 1}).folder.parent / "one")
    train(one)
    last = one.checkpoints / "epoch-0002"
    average, raw = load_file(last / "average_student.safetensors"), load_file(last / "student.safetensors")
    assert not torch.equal(average["linear.weight"], raw["linear.weight"])
    assert torch.equal(one.student.state_dict()["linear.weight"], average["linear.weight"])

    still = {"epochs": 1, "optimizer": {"lr": 1e-30, **PLAIN}}
    two = make_job({"epochs": 2, "ema": 0.9}, still)
    train(two)
    assert torch.equal(two.student.state_dict()["linear.weight"], average["linear.weight"])


def test_moving_average_takes_in_the_layers_of_methods(make_job: MakeJob) -> None:
    job = make_job({"epochs": 2, "ema": 0.9, "methods": [{"name": "self_distill"}]})
    train(job)
    last = job.checkpoints / "epoch-0002"
    kept, average, raw = (
        load_file(path)
        for path in (
            job.folder / "methods.safetensors",
            last / "average_methods.safetensors",
            last / "methods.safetensors",
        )
    )
    name = "self_distill.heads.stage1.linear.weight"
    assert torch.equal(kept[name], average[name])
    assert not torch.equal(kept[name], raw[name])


def test_phase_starts_from_the_weights_of_the_one_before_with_new_layers_of_its_methods(
    make_job: MakeJob, dataset: Dataset
) -> None:
    student = build_model("resnet8", {"conv": "depthwise"}, 4, dataset.image_shape)
    methods = {"methods": [{"name": "self_distill"}]}
    one = make_job({"epochs": 1, **methods}, student=student, folder=make_job({"epochs": 1}).folder.parent / "one")
    train(one)
    handed_on = weights(one.student)

    torch.manual_seed(0)
    student = build_model("resnet8", {"conv": "depthwise"}, 4, dataset.image_shape)
    student.load_state_dict(handed_on)
    still = {"epochs": 1, "optimizer": {"lr": 1e-30, **PLAIN}, **methods}
    two = make_job({"epochs": 1, **methods}, still, folder=one.folder)  # goes on after the first phase
    two.student = student
    train(two)
    for key, value in two.student.named_parameters():
        assert torch.equal(value, handed_on[key]), key
    first, second = (load_file(folder / "methods.safetensors") for folder in (one.folder, two.folder))
    assert first.keys() == second.keys()
    assert rows(two)[-1]["epoch"] == "2"


def test_every_phase_has_its_own_learning_rate_and_terms(make_job: MakeJob, teacher: FrozenTeacher) -> None:
    constant = {"schedule": "constant"}
    job = make_job(
        {"epochs": 1, "optimizer": {"lr": 0.1, **constant}, "methods": [{"name": "logits"}]},
        {"epochs": 1, "optimizer": {"lr": 0.01, **constant}},
        teachers=(teacher,),
    )
    train(job)
    first, second = rows(job)
    assert (first["lr"], second["lr"]) == ("0.1", "0.01")
    assert first["logits/kd"]
    assert not second["logits/kd"]


def test_teacher_is_not_changed_by_training(make_job: MakeJob, dataset: Dataset, teacher: FrozenTeacher) -> None:
    before = weights(teacher.model)
    methods = [{"name": "logits"}, {"name": "attention", "options": {"stages": [["stage2", "stage2"]]}}]
    job = make_job({"epochs": 2, "methods": methods}, teachers=(teacher,))
    train(job)
    assert weights(teacher.model).keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in teacher.model.state_dict().items())
    assert not any(module._forward_hooks for module in teacher.model.modules())


@pytest.mark.parametrize(
    ("methods", "asked"), [([], False), (["self_distill"], False), (["self_distill", "logits"], True)]
)
def test_teacher_is_asked_only_where_a_method_listens(
    make_job: MakeJob, teacher: FrozenTeacher, methods: list[str], asked: bool
) -> None:
    calls: list[int] = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    train(make_job({"epochs": 1, "methods": [{"name": name} for name in methods]}, teachers=(teacher,)))
    assert bool(calls) == asked


class Asked(Method):
    """Notes what the teacher answered."""

    Config = MethodConfig

    def __init__(self, config: MethodConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)

    def loss(self, step: Step) -> dict[str, Tensor]:
        assert step.teacher is not None
        NOTED.append((step.indices.clone(), step.teacher.logits.clone()))
        return {"asked/none": 0 * step.student.logits.sum()}


NOTED: list[tuple[Tensor, Tensor]] = []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Makes the method known, and gives what it notes."""
    METHODS.names()
    monkeypatch.setattr(METHODS, "_entries", METHODS._entries | {"asked": Asked})
    NOTED.clear()
    return NOTED


def test_teacher_sees_the_batch_in_its_own_normalization(
    make_job: MakeJob, dataset: Dataset, asked: list[tuple[Tensor, Tensor]]
) -> None:
    network = build_model("resnet8", {}, 4, dataset.image_shape)
    own = Normalize(mean=(0.1,), std=(0.5,))
    train(make_job({"epochs": 1, "methods": [{"name": "asked"}]}, teachers=(FrozenTeacher(network, own),)))
    indices, answers = asked[0]
    images = (dataset.train.images[indices].float() / 255 - 0.1) / 0.5
    torch.testing.assert_close(answers, network.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("run", [{"precision": "bf16-mixed"}, {"channels_last": True}], ids=["bf16", "channels_last"])
def test_training_works_in_other_forms_of_numbers_and_memory(
    make_job: MakeJob, dataset: Dataset, teacher: FrozenTeacher, run: dict[str, Any]
) -> None:
    methods = [{"name": "logits"}, {"name": "self_distill"}, {"name": "attention"}]
    torch.manual_seed(0)
    job = make_job(
        {"epochs": 2, "ema": 0.5, "methods": methods},
        run=run,
        teachers=(teacher,),
        student=build_model("resnet8", {"conv": "depthwise"}, 4, dataset.image_shape),
    )
    result = train(job)
    assert sorted(result.exits) == ["stage1", "stage2"]
    assert all(float(value) < 1e3 for row in rows(job) for value in row.values())
    assert {p.dtype for p in job.student.parameters()} == {torch.float32}


def test_training_compiles_the_student_once_a_phase(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs of torch.compile are run as they are: the C++ that a backend would build is torch's affair."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled(module, backend=backend))
    phases = [{"epochs": 1, "methods": [{"name": "self_distill"}]}, {"epochs": 1, "ema": 0.5}]
    eager = make_job(*phases, folder=make_job({"epochs": 1}).folder.parent / "eager")
    train(eager)
    assert not graphs
    job = make_job(*phases, run={"compile": True})
    train(job)
    assert graphs
    for key, value in job.student.state_dict().items():
        torch.testing.assert_close(value, eager.student.state_dict()[key], rtol=1e-4, atol=1e-5)
