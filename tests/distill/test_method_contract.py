"""What every registered method promises, whichever it is."""

import copy
import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
from fivelevels import FiveLevels, some_targets
from pydantic import ValidationError

from kdedge.core.training import MethodUse
from kdedge.distill.base import METHODS, Method, Network, Step, View
from kdedge.distill.weights import check_terms
from kdedge.models.features import FeatureTap
from kdedge.models.zoo import build_model

SHAPE, CLASSES, SAMPLES, IMAGES = (3, 16, 16), 10, 8, 12
CITATION = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/\S+|\b(CVPR|ICCV|ECCV|ICLR|ICML|NeurIPS|AAAI|TPAMI)\b")
OWN_TESTS = Path(__file__).parent / "methods"

CASES = [(name, task) for name in METHODS.names() for task in sorted(METHODS.get(name).tasks)]
each_method = pytest.mark.parametrize("name", METHODS.names())
each_case = pytest.mark.parametrize(("name", "task"), CASES)
COMPOSITE = [case for case in CASES if METHODS.get(case[0]).prune is not Method.prune]

CHANGES = {
    "batch": lambda tensor: torch.cat([tensor, tensor]),
    "order": lambda tensor: tensor[torch.tensor([2, 7, 0, 5, 1, 6, 3, 4])],
    "map": lambda tensor: tensor.repeat_interleave(2, 2).repeat_interleave(2, 3) if tensor.dim() == 4 else tensor,
}
"""What a loss is free of, unless the method's `depends_on` says why it cannot be, as a change to each tensor."""


def dependencies(name):
    return METHODS.get(name).depends_on


class Scene:
    """A method between a student and a teacher, and one step whose teacher tensors ask for gradients."""

    def __init__(self, name, task, options=None):
        torch.manual_seed(0)
        kind = METHODS.get(name)
        self.student, self.teacher, images, labels = SCENES[task]()
        self.student_keys = list(self.student.state_dict())
        self.network = known(self.student)
        usual = kind.detector_options if task == "detect" else {}
        config = kind.Config.model_validate({**usual, **(options or {})})
        self.method = kind(config, self.network, known(self.teacher.eval()))
        student = observe(self.student, self.method.student_features, images)
        teacher = observe(self.teacher, self.method.teacher_features, images)
        peers = (observe(build_model("resnet8", {}, CLASSES, SHAPE), (), images),) if kind.needs_peers else ()
        self.step = Step(labels, torch.arange(SAMPLES), student, teacher, epoch=0, progress=0.5, peers=peers)
        settled = mapped(self.step, torch.Tensor.detach)
        self.method.prepare([(settled.student, settled.teacher)])

    def terms(self, **changes):
        """Of the step or one that differs, from the same state each time: a method may draw, and keep what it saw."""
        torch.manual_seed(1)
        return copy.deepcopy(self.method)(dataclasses.replace(self.step, **changes))


def classifiers():
    networks = [build_model(name, {}, CLASSES, SHAPE) for name in ("resnet8", "resnet14")]
    return *networks, torch.randn(SAMPLES, *SHAPE), torch.arange(SAMPLES) % CLASSES


def detectors():
    return FiveLevels(6), FiveLevels(8), torch.randn(SAMPLES, 3, 128, 128), some_targets(SAMPLES)


SCENES = {"classify": classifiers, "detect": detectors}


def known(network):
    """What a method may know of it."""
    if isinstance(network, FiveLevels):
        return network.network()
    return Network(network.feature_points, CLASSES, SHAPE[1], IMAGES)


def observe(network, stages, images):
    with FeatureTap(network, stages) as tap:
        return View(network(images), dict(tap.features))


@pytest.fixture
def scene(name, task):
    return Scene(name, task)


def mapped(step, change):
    """The step with a function applied to each of its tensors."""

    def view(seen):
        return View(change(seen.logits), {stage: change(feature) for stage, feature in seen.features.items()})

    views = {"student": view(step.student), "teacher": view(step.teacher), "peers": tuple(map(view, step.peers))}
    return dataclasses.replace(step, labels=change(step.labels), indices=change(step.indices), **views)


def total(terms):
    return torch.stack(list(terms.values())).sum()


def assert_same(terms, expected):
    torch.testing.assert_close(terms, expected, rtol=0, atol=0)


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


@each_case
def test_method_terms_are_finite_scalars_under_its_name(name, scene):
    terms = scene.method(scene.step)
    assert terms
    for term, value in terms.items():
        assert term.startswith(f"{name}/")
        assert value.shape == ()
        assert value.isfinite()


@each_case
def test_method_gradients_reach_the_student_and_its_own_layers(name, scene):
    total(scene.method(scene.step)).backward()
    assert any(p.grad is not None and p.grad.any() for p in scene.student.parameters())
    assert [key for key, p in scene.method.named_parameters() if p.grad is None or not p.grad.any()] == []


@each_case
def test_method_gradients_never_reach_the_teacher(name, scene):
    assert scene.step.teacher.logits.requires_grad
    total(scene.method(scene.step)).backward()
    assert [key for key, p in scene.teacher.named_parameters() if p.grad is not None] == []


@pytest.mark.parametrize(
    ("name", "task", "what"), [(*case, what) for case in CASES for what in CHANGES if what not in dependencies(case[0])]
)
def test_method_terms_do_not_depend_on_batch_order_and_map(scene, what):
    changed = mapped(scene.step, CHANGES[what])
    torch.testing.assert_close(scene.terms(**vars(changed)), scene.terms(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "task", "what"), [(*case, what) for case in CASES for what in dependencies(case[0])])
def test_method_depends_on_what_it_says_for_a_reason(name, scene, what):
    changed = mapped(scene.step, CHANGES[what])
    assert len(dependencies(name)[what].split()) > 3
    assert not torch.allclose(total(scene.terms(**vars(changed))), total(scene.terms()), rtol=1e-6, atol=0)


@each_case
def test_method_has_the_same_terms_at_every_step(scene):
    first, last = scene.terms(epoch=0, progress=0.0), scene.terms(epoch=9, progress=1.0)
    assert first.keys() == last.keys()


@each_case
def test_method_goes_on_from_its_saved_state(name, task, scene):
    other = Scene(name, task)
    scene.method(scene.step)
    other.method.load_state_dict(scene.method.state_dict())
    assert_same(other.terms(epoch=1), scene.terms(epoch=1))


@each_case
def test_method_weights_and_presets_fit_its_options_and_terms(name, task, scene):
    kind = METHODS.get(name)
    check_terms(MethodUse(name=name, terms={pattern: {} for pattern in kind.terms}), scene.terms())
    for preset in kind.presets.values():
        if preset.task == task:
            check_terms(
                MethodUse(name=name, terms={term: {"weight": weight} for term, weight in preset.terms.items()}),
                Scene(name, task, preset.options).terms(),
            )


@each_method
def test_method_presets_are_for_a_task_of_it(name):
    kind = METHODS.get(name)
    assert kind.tasks
    assert {preset.task for preset in kind.presets.values()} <= kind.tasks


def test_composite_methods_are_those_of_several_kinds_of_terms():
    known_ones = {"ccskd", "fgd", "hybrid_attention", "mkd", "mskd_ssr", "self_distill", "spatial_attention"}
    assert known_ones <= {name for name, _ in COMPOSITE}


@pytest.mark.parametrize(("name", "task"), COMPOSITE)
def test_composite_method_goes_without_any_of_its_terms(name, task, scene):
    """The other terms are what they were, and every layer that still trains is of use to one of them."""
    whole = {key: value for key, value in scene.terms().items() if "/teacher/" not in key}
    for left_out in whole:
        other = Scene(name, task)
        other.method.narrow(lambda term, left_out=left_out: f"{name}/{term}" != left_out)
        terms = other.method(other.step)
        assert_same({key: terms.get(key) for key in whole if key != left_out}, whole_without(whole, left_out))
        assert left_out not in terms
        assert other.method.silent == {left_out.removeprefix(f"{name}/")}
        total(terms).backward()
        assert [key for key, p in other.method.named_parameters() if p.requires_grad and p.grad is None] == []


def whole_without(terms, name):
    return {key: value for key, value in terms.items() if key != name}


@each_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_method_is_finite_in_half_precision(name, scene, dtype):
    half = mapped(scene.step, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    with torch.autocast("cpu", dtype):
        terms = scene.method(half)
    total(terms).backward()
    assert all(value.isfinite() and value.dtype == torch.float32 for value in terms.values())
    gradients = [p.grad for net in (scene.student, scene.method) for p in net.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_method_is_finite_for_extreme_logits(name, scene, dtype):
    sure = 1e4 * torch.eye(CLASSES, dtype=dtype)[:SAMPLES]
    if scene.network.layout:  # a class for each anchor, and boxes far away
        sure = sure[:, :7].reshape(SAMPLES, 1, 7).expand(-1, len(scene.network.layout.anchors), -1)
    student, teacher = sure.clone().requires_grad_(), -sure.roll(1, 0)
    views = {
        role: dataclasses.replace(getattr(scene.step, role), logits=z)
        for role, z in (("student", student), ("teacher", teacher))
    }
    terms = scene.method(dataclasses.replace(scene.step, **views))
    total(terms).backward()
    assert all(value.isfinite() for value in terms.values())
    assert student.grad is None or student.grad.isfinite().all()


@pytest.mark.parametrize(("name", "task"), [case for case in CASES if not METHODS.get(case[0]).needs_teacher])
def test_method_that_needs_no_teacher_runs_without_one(name, scene):
    method = METHODS.get(name)
    alone = method(method.Config(), scene.network, None)
    assert total(alone(dataclasses.replace(scene.step, teacher=None))).isfinite()


@each_case
def test_method_keeps_its_layers_out_of_the_student(name, scene):
    total(scene.method(scene.step)).backward()
    assert list(scene.student.state_dict()) == scene.student_keys
    assert not {id(p) for p in scene.method.parameters()} & {id(p) for p in scene.student.parameters()}
