import pytest
import torch

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.attention import attention_loss
from kdedge.distill.methods.logits import kd_loss, standardized
from kdedge.distill.methods.pkt import pkt_loss
from kdedge.distill.methods.spatial_attention import SpatialAttention, SpatialAttentionConfig
from kdedge.distill.pearson import pearson_loss
from kdedge.distill.weights import term_weight
from kdedge.models.features import FeaturePoint


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(*widths, classes=10, image_size=8):
    """A network of stages of these widths; each but the first halves the map."""
    points = {f"stage{n + 1}": FeaturePoint("", width, 2**n) for n, width in enumerate(widths)}
    return Network(points, classes, image_size)


def view(*widths, seed=0):
    stages = {f"stage{n + 1}": feature(4, width, 8 >> n, 8 >> n, seed=seed + n) for n, width in enumerate(widths)}
    return View(feature(4, 10, seed=seed + 50), stages)


def step(student, teacher):
    return Step(torch.zeros(4), torch.arange(4), student, teacher, epoch=0, progress=0.0)


def spatial(student, teacher, **options):
    return SpatialAttention(SpatialAttentionConfig(**options), student, teacher)


def test_terms_are_those_of_the_adapted_student():
    student, teacher = view(4, 6), view(4, 8, seed=10)
    method = spatial(network(4, 6), network(4, 8)).eval()
    expected = {"logits": kd_loss(student.logits, teacher.logits, 4.0)}
    for stage, theirs in teacher.features.items():
        ours = method.adapters[stage](student.features[stage])
        expected[f"fit/{stage}"] = pkt_loss(ours.mean((2, 3)), theirs.mean((2, 3)))
        expected[f"attention/{stage}"] = attention_loss(ours, theirs, 2, "squared")
        expected[f"feature/{stage}"] = pearson_loss(ours, theirs)
    terms = method(step(student, teacher))
    torch.testing.assert_close(terms, {f"spatial_attention/{name}": value for name, value in expected.items()})


def test_terms_are_zero_for_a_student_that_is_the_teacher():
    same = view(4, 8)
    method = spatial(network(4, 8), network(4, 8))
    method.adapters = torch.nn.ModuleDict({stage: torch.nn.Identity() for stage in method.adapters})
    terms = method(step(same, same))
    assert [value.item() for value in terms.values()] == pytest.approx([0] * 7, abs=1e-5)


def test_logits_can_be_standardized():
    student, teacher = view(4), view(4, seed=10)
    terms = spatial(network(4), network(4), standardize=True, temperature=2)(step(student, teacher))
    expected = kd_loss(standardized(student.logits), standardized(teacher.logits), 2)
    assert terms["spatial_attention/logits"].item() == expected.item()


def test_auto_takes_the_last_two_shared_stages():
    assert spatial(network(2, 4, 8), network(4, 8, 16)).student_features == ("stage2", "stage3")
    assert spatial(network(2), network(4)).student_features == ("stage1",)
    named = spatial(network(2, 4, 8), network(4, 8, 16), stages=["stage1", "stage2", "stage3"])
    assert len(named.student_features) == 3


def test_adapters_end_in_a_relu_unless_told():
    networks = network(4), network(8)
    for relu, negative in ((True, False), (False, True)):
        method = spatial(*networks, relu=relu)
        assert bool((method.adapters["stage1"](feature(2, 4, 8, 8)) < 0).any()) == negative


@pytest.mark.parametrize(
    ("progress", "fit", "shown"), [(0.0, 30000 / 64, 0.0), (0.1, 30000 / 64, 0.5), (0.2, 30000 / 64, 1.0), (0.6, 0, 1)]
)
def test_fit_comes_first_and_maps_and_features_rise(progress, fit, shown):
    use = MethodUse(name="spatial_attention")
    found = {
        name: term_weight(use, SpatialAttention.terms, f"spatial_attention/{name}", progress)
        for name in ("fit/stage2", "attention/stage2", "feature/stage2", "logits")
    }
    expected = {"fit/stage2": fit, "attention/stage2": shown, "feature/stage2": shown, "logits": 0.9}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("teacher", "options", "line"),
    [
        (
            network(4, classes=100),
            {},
            "spatial_attention: the teacher scores 100 classes and the student 10: "
            "their probabilities are compared class by class",
        ),
        (
            network(4),
            {"stages": ["stage2"]},
            "spatial_attention: the student has no stage 'stage2': did you mean 'stage1'?",
        ),
        (
            network(4, image_size=1),
            {"stages": ["stage1"]},
            "spatial_attention: 'stage1' of the teacher is a map of one place: "
            "once normalized it is the same for every image",
        ),
    ],
)
def test_spatial_attention_refuses(teacher, options, line):
    with pytest.raises(ModelError) as caught:
        spatial(network(4), teacher, **options)
    assert str(caught.value).splitlines()[0] == line
