import pytest
import torch
from fivelevels import FiveLevels
from gradient import assert_gradient
from pydantic import ValidationError
from torch import nn

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse, TermUse
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.mgd import Generator, Mgd, MgdConfig, mgd_loss, random_mask
from kdedge.distill.objective import build_methods
from kdedge.distill.weights import term_weight
from kdedge.models.features import FeaturePoint


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(*widths):
    points = {f"stage{n + 1}": FeaturePoint("", width, 2**n) for n, width in enumerate(widths)}
    return Network(points, classes=10, image_size=8)


def step(student, teacher):
    views = [View(torch.zeros(2, 10), {"stage1": x}) for x in (student, teacher)]
    return Step(torch.zeros(2), torch.arange(2), *views, epoch=0, progress=0.0)


def test_mgd_loss_by_hand():
    generated, teacher = torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]]]]), torch.tensor([[[[1.0, 4.0]], [[3.0, 0.0]]]])
    assert mgd_loss(generated, teacher).item() == (2**2 + 3**2) / 4


def test_mgd_loss_is_zero_for_equal_features():
    assert mgd_loss(feature(2, 3, 4, 4), feature(2, 3, 4, 4)).item() == 0


def test_mgd_loss_averages_the_larger_map_down():
    small, large = torch.tensor([[[[3.0]]]]), torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert mgd_loss(small, large).item() == mgd_loss(large, small).item() == 1


def test_mgd_loss_does_not_depend_on_the_size_of_batch_and_maps():
    generated, teacher = feature(2, 3, 4, 4, seed=1), feature(2, 3, 4, 4, seed=2)
    expected = mgd_loss(generated, teacher)
    torch.testing.assert_close(mgd_loss(torch.cat([generated] * 2), torch.cat([teacher] * 2)), expected)
    enlarged = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (generated, teacher)]
    torch.testing.assert_close(mgd_loss(*enlarged), expected)


def test_mgd_loss_has_the_gradient_of_its_differences():
    assert_gradient(mgd_loss, feature(2, 2, 3, 3, seed=1), feature(2, 2, 3, 3, seed=2))


def test_mgd_loss_computes_half_precision_features_in_float32():
    generated, teacher = ((1000 * feature(2, 3, 4, 4, seed=n)).half() for n in (1, 2))  # squares are beyond float16
    assert mgd_loss(generated, teacher).item() == mgd_loss(generated.float(), teacher.float()).item()


@pytest.mark.parametrize(("preset", "alpha", "shape"), [("paper", 7e-5, (512, 7, 7)), ("cifar", 1.2e-3, (512, 4, 4))])
def test_mgd_presets_are_the_published_formula(preset, alpha, shape):
    generated, teacher = feature(3, *shape, seed=1), feature(3, *shape, seed=2)
    published = alpha * sum((left - right).square().sum() for left, right in zip(generated, teacher, strict=True)) / 3
    chosen = Mgd.presets[preset]
    terms = {term: TermUse(weight=weight) for term, weight in chosen.terms.items()}
    weight = term_weight(MethodUse(name="mgd", weight=chosen.weight, terms=terms), Mgd.terms, "mgd/stage4", 0.5)
    torch.testing.assert_close(weight * mgd_loss(generated, teacher), published)
    usual = MgdConfig(**chosen.options)
    assert (usual.stages, usual.masked, usual.fraction) == ("last", "channels", 0.15)


@pytest.mark.parametrize(("masked", "shape"), [("channels", (16, 32, 1, 1)), ("places", (16, 1, 12, 12))])
def test_random_mask_hides_a_share_of_each_sample(masked, shape):
    torch.manual_seed(0)
    mask = random_mask(torch.zeros(16, 32, 12, 12), masked, 0.25)
    assert mask.shape == shape
    assert mask.unique().tolist() == [0, 1]
    assert mask.mean().item() == pytest.approx(0.75, abs=0.06)  # three deviations of 512 draws
    assert not torch.equal(mask[0], mask[1])


def test_random_mask_hides_nothing_at_a_fraction_of_zero():
    assert random_mask(torch.zeros(4, 8, 2, 2), "channels", 0.0).all()


def test_random_mask_follows_the_random_state_that_checkpoints_keep():
    state = torch.get_rng_state()
    first, second = (random_mask(torch.zeros(4, 8, 2, 2), "channels", 0.5) for _ in range(2))
    torch.set_rng_state(state)
    assert torch.equal(random_mask(torch.zeros(4, 8, 2, 2), "channels", 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("masked", ["channels", "places"])
def test_generator_sees_the_aligned_feature_less_what_is_hidden(masked):
    generator, x = Generator(2, 3), feature(2, 2, 4, 4)
    torch.manual_seed(0)
    generated = generator(x, masked, 0.5)
    torch.manual_seed(0)
    aligned = generator.align(x)
    torch.testing.assert_close(generated, generator.generate(aligned * random_mask(aligned, masked, 0.5)))
    assert generated.shape == (2, 3, 4, 4)


def test_generator_aligns_other_widths_only():
    assert isinstance(Generator(4, 6).align, nn.Conv2d)
    assert isinstance(Generator(4, 4).align, nn.Identity)


def test_mgd_generates_the_teachers_stages():
    method = Mgd(MgdConfig(stages=["stage1"], fraction=0), network(4, 8), network(6, 8))
    student, teacher = feature(2, 4, 8, 8, seed=1), feature(2, 6, 8, 8, seed=2)
    terms = method(step(student, teacher))
    expected = mgd_loss(method.generators["stage1"](student, "channels", 0), teacher)
    assert {name: term.item() for name, term in terms.items()} == {"mgd/stage1": expected.item()}


def test_mgd_takes_the_last_stage_of_each_network():
    method = Mgd(MgdConfig(), network(4, 8), network(4, 8, 16))
    assert (method.student_features, method.teacher_features) == (("stage2",), ("stage3",))


def test_mgd_refuses_an_unknown_stage():
    with pytest.raises(ModelError) as caught:
        Mgd(MgdConfig(stages=["stage3"]), network(4, 8), network(4, 8))
    assert str(caught.value).startswith("mgd: the student has no stage 'stage3': did you mean 'stage")


@pytest.mark.parametrize("options", [{"fraction": 1.0}, {"fraction": -0.1}, {"masked": "rows"}])
def test_mgd_config_refuses(options):
    with pytest.raises(ValidationError):
        MgdConfig(**options)


def test_mgd_of_detectors_hides_places_of_every_level():
    networks = FiveLevels(4).network(), FiveLevels(6).network()
    method = build_methods([MethodUse(name="mgd")], networks[0], [networks[1]])["mgd"]
    assert method.student_features == ("p3", "p4", "p5", "p6", "p7")
    assert (method.config.masked, method.config.fraction) == ("places", 0.65)
    given = MethodUse(name="mgd", options={"stages": ["p4"], "fraction": 0.5})
    method = build_methods([given], networks[0], [networks[1]])["mgd"]
    assert (method.student_features, method.config.masked, method.config.fraction) == (("p4",), "places", 0.5)


def test_mgd_retinanet_preset_is_the_published_sum():
    """Of level p5 of an image of 800x1333: 256 channels of 25x42 places."""
    generated, teacher = feature(2, 256, 25, 42, seed=1), feature(2, 256, 25, 42, seed=2)
    published = 2e-5 * (generated - teacher).square().sum() / 2
    weight = Mgd.presets["retinanet"].terms["p5"]
    torch.testing.assert_close(weight * mgd_loss(generated, teacher), published)
