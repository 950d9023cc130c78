import dataclasses
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from pydantic import ValidationError
from safetensors.torch import load_file
from steps import logit_step, random_logits

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse
from kdedge.distill.base import Network, View
from kdedge.distill.methods.mskd_ssr import MskdSsr, MskdSsrConfig, review_loss
from kdedge.distill.methods.self_distill import SelfDistill, SelfDistillConfig
from kdedge.distill.trainer import PhaseRun, train
from kdedge.distill.weights import term_weight
from kdedge.models.features import FeaturePoint

SIDE, SAMPLES = 16, 6
STUDENT = {"stage1": FeaturePoint("a", 4, 1), "stage2": FeaturePoint("b", 6, 2), "stage3": FeaturePoint("c", 8, 4)}
TEACHER = {"stage1": FeaturePoint("a", 5, 1), "stage2": FeaturePoint("b", 7, 2), "stage3": FeaturePoint("c", 9, 4)}
LABELS = torch.tensor([3, 0, 9, 3, 7, 1])
OFF = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0}


def network(points=STUDENT, classes=10):
    return Network(points, classes, SIDE)


def mskd_ssr(points=STUDENT, classes=10, **options):
    torch.manual_seed(0)
    return MskdSsr(MskdSsrConfig(**options), network(points, classes), network(TEACHER))


def view(points, seed):
    generator = torch.Generator().manual_seed(seed)
    features = {
        name: torch.randn(SAMPLES, p.channels, SIDE // p.stride, SIDE // p.stride, generator=generator)
        for name, p in points.items()
    }
    return View(
        random_logits(SAMPLES, seed=seed).requires_grad_(), {k: f.requires_grad_() for k, f in features.items()}
    )


def staged_step(epoch=0, progress=0.0):
    student, teacher = view(STUDENT, 1), view(TEACHER, 2)
    step = logit_step(student.logits, teacher.logits, LABELS)
    return dataclasses.replace(step, student=student, teacher=teacher, epoch=epoch, progress=progress)


def total(terms):
    return torch.stack(list(terms.values())).sum()


def divergence(student, teacher, temperature=4.0):
    """T^2 KL of each sample."""
    p, log_q = F.softmax(teacher / temperature, dim=1), F.log_softmax(student / temperature, dim=1)
    return temperature**2 * (p * (p.log() - log_q)).sum(dim=1)


def test_review_loss_by_hand():
    # Reviewed (1/4, 3/4), which is right of the first sample only: KL = 1/4 log 1/2 + 3/4 log 3/2, over two samples.
    reviewed = torch.tensor([[1.0, 3.0], [1.0, 3.0]]).log()
    loss = review_loss(torch.zeros(2, 2), reviewed, torch.tensor([1, 0]), 1.0)
    assert loss.item() == pytest.approx((0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2, rel=1e-5)


def test_review_loss_is_zero_where_nothing_is_right_or_all_is_known():
    student, reviewed = random_logits(seed=1), random_logits(seed=2)
    wrong = (reviewed.argmax(1) + 1) % 10
    assert review_loss(student, reviewed, wrong, 4.0) == 0
    assert review_loss(reviewed, reviewed, reviewed.argmax(1), 4.0) == 0


def test_review_loss_gradient_reaches_who_reviews_alone():
    reviewed = random_logits(seed=2).requires_grad_()
    labels = reviewed.argmax(1)
    labels[0] = (labels[0] + 1) % 10
    assert_gradient(lambda student: review_loss(student, reviewed, labels, 2.0), random_logits(seed=1))
    assert reviewed.grad is None


def test_mskd_ssr_terms_are_the_formulas():
    method, step = mskd_ssr(alpha=0.6, beta=2.0, gamma=0.5), staged_step()
    terms = method(step)
    mine, theirs = (
        {name: head(v.features[name])[1] for name, head in heads.items()} | {"stage3": v.logits}
        for heads, v in ((method.heads, step.student), (method.teacher_heads, step.teacher))
    )
    expected = {f"teacher/{stage}": F.cross_entropy(theirs[stage], LABELS) for stage in ("stage1", "stage2")}
    expected |= {f"{stage}/labels": F.cross_entropy(mine[stage], LABELS) / 3 for stage in ("stage1", "stage2")}
    expected |= {f"{stage}/response": 0.6 / 3 * divergence(mine[stage], theirs[stage]).mean() for stage in STUDENT}
    for stage in STUDENT:
        conv = method.adapters[stage]
        maps = F.conv2d(step.student.features[stage], conv.weight[:, :, None, None], conv.bias)
        gap = maps.mean((2, 3)) - step.teacher.features[stage].mean((2, 3))
        expected[f"{stage}/feature"] = 2.0 * gap.square().mean()
    for earlier, stage in pairwise(STUDENT):
        gate = (mine[earlier].argmax(1) == LABELS).float()
        expected[f"{stage}/review"] = 0.5 * (gate * divergence(mine[stage], mine[earlier])).mean()
    expected = {f"mskd_ssr/{name}": value for name, value in expected.items()}
    assert list(terms) == list(expected)
    torch.testing.assert_close(terms, expected, rtol=1e-4, atol=1e-6)


def test_mskd_ssr_is_zero_but_for_the_labels_where_the_student_is_the_teacher():
    torch.manual_seed(0)
    method = MskdSsr(MskdSsrConfig(gamma=0), network(), network())
    method.heads.load_state_dict(method.teacher_heads.state_dict())
    for adapter in method.adapters.values():
        torch.nn.init.eye_(adapter.weight)
        torch.nn.init.zeros_(adapter.bias)
    step = staged_step()
    terms = method(dataclasses.replace(step, teacher=step.student))
    known = torch.stack([term for name, term in terms.items() if name.endswith(("response", "feature"))])
    torch.testing.assert_close(known, torch.zeros(6), rtol=0, atol=1e-6)


def test_mskd_ssr_with_all_weights_zero_is_deep_supervision():
    method, step = mskd_ssr(**OFF), staged_step()
    deep = SelfDistill(SelfDistillConfig(alpha=0, attention="none"), network(), None)
    deep.heads.load_state_dict(method.heads.state_dict())
    ours, theirs = method(step), deep(step)
    assert [name.removeprefix("mskd_ssr/") for name in ours] == [name.removeprefix("self_distill/") for name in theirs]
    torch.testing.assert_close(3 * total(ours), total(theirs))
    shallow = [step.student.features[stage] for stage in ("stage1", "stage2")]
    ours, theirs = (torch.autograd.grad(total(terms), shallow) for terms in (ours, theirs))
    torch.testing.assert_close([3 * gradient for gradient in ours], list(theirs))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {}),
        ({"gamma": 0, "alpha": 0, "review": "deep_to_shallow"}, {}),
        ({"teacher_heads": "frozen", "stages": ["stage1"]}, {"teacher_heads": "frozen", "stages": ["stage1"]}),
    ],
)
def test_mskd_ssr_control_is_deep_supervision_at_the_same_stages(options, kept):
    assert MskdSsr.control(options) == ("deep supervision", kept | OFF)


@pytest.mark.parametrize("options", [OFF, {"teacher_heads": "train"}])
def test_mskd_ssr_that_distills_nothing_has_no_control(options):
    assert MskdSsr.control(options) is None


def test_mskd_ssr_grows_through_the_first_tenth_but_for_the_labels():
    use = MethodUse(name="mskd_ssr")
    weights = {part: term_weight(use, MskdSsr.terms, f"mskd_ssr/{part}", 0.05) for part in ("teacher/a", "a/labels")}
    assert weights == {"teacher/a": 1.0, "a/labels": 1.0}
    for part in ("response", "feature", "review"):
        grown = [term_weight(use, MskdSsr.terms, f"mskd_ssr/stage1/{part}", at) for at in (0.0, 0.05, 0.1, 1.0)]
        assert grown == pytest.approx([0.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize(
    ("review", "learners"),
    [("shallow_to_deep", ["stage2", "stage3"]), ("deep_to_shallow", ["stage2", "stage1"])],
)
def test_mskd_ssr_review_goes_either_way(review, learners):
    method, step = mskd_ssr(alpha=0, beta=0, gamma=1.0, review=review), staged_step()
    answers = method.exits(step.student) | {"stage3": step.student.logits}
    teachers = {"shallow_to_deep": ["stage1", "stage2"], "deep_to_shallow": ["stage3", "stage2"]}[review]
    terms = {name: term for name, term in method(step).items() if name.endswith("review")}
    assert list(terms) == [f"mskd_ssr/{stage}/review" for stage in learners]
    expected = [
        review_loss(answers[stage], answers[reviewed], LABELS, 4.0)
        for stage, reviewed in zip(learners, teachers, strict=True)
    ]
    torch.testing.assert_close(list(terms.values()), expected)


def test_mskd_ssr_standardize_ignores_shift_and_scale_of_every_answer():
    method, step = mskd_ssr(standardize=True), staged_step()
    parts = ("response", "review")
    before = {name: term for name, term in method(step).items() if name.endswith(parts)}
    with torch.no_grad():
        for heads in (method.heads, method.teacher_heads):
            for head in heads.values():
                head.linear.weight.mul_(5)
                head.linear.bias.mul_(5).add_(3)
    student, teacher = View(3 * step.student.logits + 1, step.student.features), step.teacher
    after = method(dataclasses.replace(step, student=student, teacher=View(0.5 * teacher.logits, teacher.features)))
    torch.testing.assert_close(before, {name: after[name] for name in before}, rtol=1e-3, atol=1e-5)


def test_mskd_ssr_orders_named_stages_by_the_students_depth():
    method = mskd_ssr(stages=("stage2", ("stage1", "stage2")))
    assert method.student_features == ("stage1", "stage2")
    reviews = [name for name in method(staged_step()) if name.endswith("review")]
    assert reviews == ["mskd_ssr/stage2/review", "mskd_ssr/stage3/review"]


def test_mskd_ssr_exits_are_the_logits_of_the_stages_that_there_are():
    method, student = mskd_ssr(), view(STUDENT, 1)
    exits = method.exits(student)
    assert {stage: tuple(logits.shape) for stage, logits in exits.items()} == {"stage1": (6, 10), "stage2": (6, 10)}
    assert list(method.exits(View(student.logits, {"stage1": student.features["stage1"]}))) == ["stage1"]
    assert mskd_ssr(teacher_heads="train").exits(student) == {}


def test_mskd_ssr_has_the_same_layers_whatever_learns():
    shapes = [
        {key: value.shape for key, value in method.state_dict().items()}
        for method in (mskd_ssr(), mskd_ssr(teacher_heads="train"), mskd_ssr(teacher_heads="frozen", **OFF))
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize(
    ("options", "learning"),
    [
        ({}, {"heads", "teacher_heads", "adapters"}),
        ({"teacher_heads": "train"}, {"teacher_heads"}),
        ({"teacher_heads": "frozen"}, {"heads", "adapters"}),
        ({"beta": 0}, {"heads", "teacher_heads"}),
        (OFF, {"heads"}),
    ],
)
def test_mskd_ssr_trains_the_layers_that_it_uses_and_no_others(options, learning):
    method = mskd_ssr(**options)
    total(method(staged_step())).backward()
    assert {name.partition(".")[0] for name, p in method.named_parameters() if p.requires_grad} == learning
    assert all((p.grad is not None) == p.requires_grad for p in method.parameters())


def test_mskd_ssr_training_the_teachers_heads_leaves_the_student_alone():
    method, step = mskd_ssr(teacher_heads="train"), staged_step()
    terms = method(step)
    assert list(terms) == ["mskd_ssr/teacher/stage1", "mskd_ssr/teacher/stage2"]
    total(terms).backward()
    tensors = [*step.student.features.values(), *step.teacher.features.values(), step.student.logits]
    assert all(tensor.grad is None for tensor in tensors)


def test_mskd_ssr_heads_of_the_teacher_learn_from_labels_alone():
    method, step = mskd_ssr(), staged_step()
    terms = method(step)
    weights = list(method.teacher_heads.parameters())
    for name, term in terms.items():
        found = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
        assert any(gradient is not None for gradient in found) == name.startswith("mskd_ssr/teacher/")


def test_mskd_ssr_frozen_heads_do_not_move_in_training():
    method = mskd_ssr(teacher_heads="frozen").train()
    before = {key: value.clone() for key, value in method.teacher_heads.state_dict().items()}
    method(staged_step())
    assert all(torch.equal(value, before[key]) for key, value in method.teacher_heads.state_dict().items())
    assert method.heads.training
    assert not method.teacher_heads.training
    assert mskd_ssr().train().teacher_heads.training
    assert not mskd_ssr().eval().teacher_heads.training


@pytest.mark.parametrize(
    "before",
    [
        None,
        {"alpha": 0},
        {"teacher_heads": "train", "stages": ["stage1"]},
    ],
)
def test_mskd_ssr_refuses_frozen_heads_that_the_phase_before_did_not_train(before):
    with pytest.raises(ModelError, match=r"^mskd_ssr: the teacher's heads are frozen and were never trained: "):
        MskdSsr.check_order({"teacher_heads": "frozen"}, before)


@pytest.mark.parametrize(
    ("options", "before"),
    [
        ({"teacher_heads": "frozen"}, {"teacher_heads": "train"}),
        ({"teacher_heads": "frozen"}, {"alpha": 0, "teacher_heads": "train"}),
        ({"teacher_heads": "frozen"}, {}),
        ({"teacher_heads": "frozen", "alpha": 0}, None),
        ({}, None),
    ],
)
def test_mskd_ssr_takes_frozen_heads_that_were_trained(options, before):
    MskdSsr.check_order(options, before)


def test_mskd_ssr_needs_no_heads_of_the_teacher_without_responses():
    terms = mskd_ssr(teacher_heads="frozen", alpha=0)(staged_step(progress=0.5))
    assert {name.rpartition("/")[2] for name in terms} == {"labels", "feature", "review"}


@pytest.mark.parametrize(
    ("points", "classes", "options", "line"),
    [
        (STUDENT, 100, {}, "mskd_ssr: the teacher scores 10 classes and the student 100: "),
        (STUDENT, 10, {"stages": "last"}, "mskd_ssr: only one stage to compare, 'stage3' of the student: "),
        ({"stage1": FeaturePoint("a", 4, 1)}, 10, {}, "mskd_ssr: only one stage to compare, 'stage1' of the student: "),
        (STUDENT, 10, {"stages": ("stage4",)}, "mskd_ssr: the student has no stage 'stage4': "),
    ],
    ids=["classes", "last", "one", "stage"],
)
def test_mskd_ssr_refuses(points, classes, options, line):
    with pytest.raises(ModelError) as refused:
        mskd_ssr(points, classes, **options)
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize("options", [{"alpha": -1}, {"beta": -1}, {"gamma": -1}, {"review": "up"}, {"temperature": 0}])
def test_mskd_ssr_config_refuses(options):
    with pytest.raises(ValidationError):
        MskdSsrConfig(**options)


def use(**options):
    return {"methods": [{"name": "mskd_ssr", "options": options}]}


HEADS = {"epochs": 1, "freeze": ["*"], "cross_entropy": {"weight": 0}, **use(teacher_heads="train")}
STUDENTS = {"epochs": 2, **use(teacher_heads="frozen")}


def kept(job):
    """Student and methods of a finished training, by file."""
    return {name: load_file(job.folder / f"{name}.safetensors") for name in ("weights", "methods")}


def heads(weights):
    return {key: value for key, value in weights["methods"].items() if ".teacher_heads." in key}


def test_mskd_ssr_phases_train_one_part_each(make_job, teacher, small, tmp_path):
    first = make_job(HEADS, teachers=(teacher,), folder=tmp_path / "first")
    train(first)
    both = make_job(HEADS, STUDENTS, teachers=(teacher,), folder=tmp_path / "both")
    result = train(both)
    before, middle, end = small().state_dict(), kept(first), kept(both)
    assert all(torch.equal(value, before[key]) for key, value in middle["weights"].items())
    assert not any(torch.equal(value, before[key]) for key, value in end["weights"].items() if "weight" in key)
    assert heads(middle).keys() == heads(end).keys()
    assert all(torch.equal(value, heads(middle)[key]) for key, value in heads(end).items())
    assert list(result.exits) == ["stage1"]


def test_mskd_ssr_interrupted_around_the_border_of_its_phases_ends_in_the_same_weights(
    make_job, teacher, tmp_path, monkeypatch
):
    whole = make_job(HEADS, STUDENTS, teachers=(teacher,), folder=tmp_path / "whole")
    train(whole)
    step = PhaseRun.step
    for stop in (3, 5, 6):  # in the first phase; at the first step of the second; in the last epoch
        steps = iter(range(1, 100))

        def halted(self, *args, stop=stop, steps=steps):
            if next(steps) == stop:
                raise KeyboardInterrupt
            step(self, *args)

        monkeypatch.setattr(PhaseRun, "step", halted)
        with pytest.raises(KeyboardInterrupt):
            train(make_job(HEADS, STUDENTS, teachers=(teacher,)))
    monkeypatch.undo()
    resumed = make_job(HEADS, STUDENTS, teachers=(teacher,))
    train(resumed)
    torch.testing.assert_close(kept(resumed), kept(whole), rtol=0, atol=0)
