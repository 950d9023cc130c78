"""What every registered method promises, whichever it is."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from kdedge.distill.base import METHODS, Network, Step, View
from kdedge.models.features import FeatureTap
from kdedge.models.zoo import build_model

SHAPE, CLASSES, SAMPLES = (3, 16, 16), 10, 8
CITATION = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/\S+|\b(CVPR|ICCV|ECCV|ICLR|ICML|NeurIPS|AAAI|TPAMI)\b")
OWN_TESTS = Path(__file__).parent / "methods"

each_method = pytest.mark.parametrize("name", METHODS.names())


class Scene:
    """A method between a real student and a real teacher, and one step whose teacher tensors ask for gradients."""

    def __init__(self, name):
        torch.manual_seed(0)
        self.student = build_model("resnet8", {}, CLASSES, SHAPE)
        self.student_keys = list(self.student.state_dict())
        self.teacher = build_model("resnet14", {}, CLASSES, SHAPE).eval()
        networks = [Network(net.feature_points, CLASSES, SHAPE[1]) for net in (self.student, self.teacher)]
        self.method = METHODS.get(name)(METHODS.get(name).Config(), *networks)
        images, labels = torch.randn(SAMPLES, *SHAPE), torch.arange(SAMPLES) % CLASSES
        student = observe(self.student, self.method.student_features, images)
        teacher = observe(self.teacher, self.method.teacher_features, images)
        self.step = Step(labels, torch.arange(SAMPLES), student, teacher, epoch=0, progress=0.5)


def observe(network, stages, images):
    with FeatureTap(network, stages) as tap:
        return View(network(images), dict(tap.features))


@pytest.fixture
def scene(name):
    return Scene(name)


def mapped(step, change):
    """The step with a function applied to each of its tensors."""
    views = {
        role: View(change(view.logits), {stage: change(feature) for stage, feature in view.features.items()})
        for role, view in (("student", step.student), ("teacher", step.teacher))
    }
    return dataclasses.replace(step, labels=change(step.labels), indices=change(step.indices), **views)


def total(terms):
    return torch.stack(list(terms.values())).sum()


@each_method
def test_method_module_has_its_name_cites_its_source_and_says_what_it_is(name):
    module = sys.modules[METHODS.get(name).__module__]
    assert module.__name__.rpartition(".")[2] == name
    summary, _, rest = module.__doc__.partition("\n")
    assert summary.endswith(".")
    assert CITATION.search(rest)


@each_method
def test_method_has_a_test_file_of_its_own(name):
    assert (OWN_TESTS / f"test_{name}.py").is_file()


@each_method
def test_method_config_builds_from_nothing_and_survives_json(name):
    config = METHODS.get(name).Config
    assert config.model_validate_json(config().model_dump_json()) == config()


@each_method
def test_method_options_are_described(name):
    fields = METHODS.get(name).Config.model_fields
    assert [key for key, field in fields.items() if not field.description] == []


@each_method
def test_method_config_refuses_an_unknown_option(name):
    with pytest.raises(ValidationError, match="no_such_option"):
        METHODS.get(name).Config.model_validate({"no_such_option": 1})


@each_method
def test_method_terms_are_finite_scalars_under_its_name(name, scene):
    terms = scene.method(scene.step)
    assert terms
    for term, value in terms.items():
        assert term.startswith(f"{name}/")
        assert value.shape == ()
        assert value.isfinite()


@each_method
def test_method_gradients_reach_the_student_and_its_own_layers(name, scene):
    total(scene.method(scene.step)).backward()
    assert any(p.grad is not None and p.grad.any() for p in scene.student.parameters())
    assert [key for key, p in scene.method.named_parameters() if p.grad is None or not p.grad.any()] == []


@each_method
def test_method_gradients_never_reach_the_teacher(name, scene):
    assert scene.step.teacher.logits.requires_grad
    total(scene.method(scene.step)).backward()
    assert [key for key, p in scene.teacher.named_parameters() if p.grad is not None] == []


@each_method
def test_method_terms_do_not_depend_on_the_size_of_the_batch(name, scene):
    twice = scene.method(mapped(scene.step, lambda tensor: torch.cat([tensor, tensor])))
    torch.testing.assert_close(twice, scene.method(scene.step), rtol=1e-4, atol=1e-6)


@each_method
def test_method_terms_do_not_depend_on_the_order_of_the_batch(name, scene):
    order = torch.randperm(SAMPLES)
    torch.testing.assert_close(
        scene.method(mapped(scene.step, lambda t: t[order])), scene.method(scene.step), rtol=1e-4, atol=1e-6
    )


@each_method
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_method_is_finite_in_half_precision(name, scene, dtype):
    half = mapped(scene.step, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    with torch.autocast("cpu", dtype):
        terms = scene.method(half)
    total(terms).backward()
    assert all(value.isfinite() and value.dtype == torch.float32 for value in terms.values())
    gradients = [p.grad for net in (scene.student, scene.method) for p in net.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


@each_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_method_is_finite_for_extreme_logits(name, scene, dtype):
    sure = 1e4 * torch.eye(CLASSES, dtype=dtype)[:SAMPLES]
    student, teacher = sure.clone().requires_grad_(), -sure.roll(1, 0)
    views = {
        role: dataclasses.replace(getattr(scene.step, role), logits=z)
        for role, z in (("student", student), ("teacher", teacher))
    }
    terms = scene.method(dataclasses.replace(scene.step, **views))
    total(terms).backward()
    assert all(value.isfinite() for value in terms.values())
    assert student.grad is None or student.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in METHODS.names() if not METHODS.get(name).needs_teacher])
def test_method_that_needs_no_teacher_runs_without_one(name, scene):
    method = METHODS.get(name)
    alone = method(method.Config(), Network(scene.student.feature_points, CLASSES, SHAPE[1]), None)
    assert total(alone(dataclasses.replace(scene.step, teacher=None))).isfinite()


@each_method
def test_method_keeps_its_layers_out_of_the_student(name, scene):
    total(scene.method(scene.step)).backward()
    assert list(scene.student.state_dict()) == scene.student_keys
    assert not {id(p) for p in scene.method.parameters()} & {id(p) for p in scene.student.parameters()}
