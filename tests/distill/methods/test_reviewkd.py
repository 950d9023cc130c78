import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.reviewkd import Fusion, ReviewConfig, ReviewKD, context_loss
from kdedge.distill.weights import term_weight
from kdedge.models.features import FeaturePoint


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(*widths, image_size=8):
    points = {f"stage{n + 1}": FeaturePoint("", width, 2**n) for n, width in enumerate(widths)}
    return Network(points, classes=10, image_size=image_size)


def stages(*widths, side=8, seed=0):
    return {f"stage{n + 1}": feature(2, width, side >> n, side >> n, seed=seed + n) for n, width in enumerate(widths)}


def step(student, teacher):
    views = [View(torch.zeros(2, 10), features) for features in (student, teacher)]
    return Step(torch.zeros(2), torch.arange(2), *views, epoch=0, progress=0.0)


def enlarged(tensor):
    return tensor.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_context_loss_by_hand():
    student, teacher = torch.tensor([[[[3.0, 0.0], [0.0, 0.0]]]]), torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]])
    whole = (3**2 + 1**2) / 4
    single_place = (3 / 4 - 1 / 4) ** 2  # at half the weight; 4x4 and 2x2 are not smaller than the map
    assert context_loss(student, teacher).item() == pytest.approx((whole + single_place / 2) / 1.5)


def test_context_loss_is_zero_for_equal_maps():
    assert context_loss(feature(2, 3, 8, 8), feature(2, 3, 8, 8)).item() == 0


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_reviewkd_paper_preset_is_the_published_formula(side):
    student, teacher = feature(3, 2, side, side, seed=1), feature(3, 2, side, side, seed=2)
    published, total, weight = (student - teacher).pow(2).mean(), 1.0, 1.0
    for places in (4, 2, 1):
        if places < side:
            weight /= 2
            gap = F.adaptive_avg_pool2d(student, places) - F.adaptive_avg_pool2d(teacher, places)
            published, total = published + weight * gap.pow(2).mean(), total + weight
    preset = ReviewKD.presets["paper"]
    torch.testing.assert_close(preset.weight * context_loss(student, teacher), 0.6 * published / total)
    use = MethodUse(name="reviewkd", weight=preset.weight)
    ramp = [term_weight(use, ReviewKD.terms, "reviewkd/stage1", epoch / 240) for epoch in (0, 10, 20, 240)]
    assert ramp == pytest.approx([0, 0.3, 0.6, 0.6])


def test_context_loss_does_not_depend_on_the_size_of_batch_and_maps():
    student, teacher = feature(2, 3, 8, 8, seed=1), feature(2, 3, 8, 8, seed=2)
    expected = context_loss(student, teacher)
    torch.testing.assert_close(context_loss(torch.cat([student, student]), torch.cat([teacher, teacher])), expected)
    torch.testing.assert_close(context_loss(enlarged(student), enlarged(teacher)), expected)


def test_context_loss_has_the_gradient_of_its_differences():
    assert_gradient(context_loss, feature(2, 2, 6, 6, seed=1), feature(2, 2, 6, 6, seed=2))


def test_context_loss_computes_half_precision_maps_in_float32():
    student, teacher = ((1000 * feature(2, 3, 4, 4, seed=n)).half() for n in (1, 2))  # squares are beyond float16
    assert context_loss(student, teacher).item() == context_loss(student.float(), teacher.float()).item()


def test_fusion_weighs_its_stage_and_the_enlarged_deeper_one_at_each_place():
    fusion = Fusion(2, 3, 4, deepest=False).eval()
    stage, deeper = feature(2, 2, 4, 4, seed=1), feature(2, 4, 2, 2, seed=2)
    estimate, fused = fusion(stage, deeper, (8, 8))
    reduced, above = fusion.reduce(stage), enlarged(deeper)
    weights = fusion.weigh(torch.cat([reduced, above], 1)).sigmoid()
    torch.testing.assert_close(fused, reduced * weights[:, [0]] + above * weights[:, [1]])
    torch.testing.assert_close(estimate, fusion.expand(enlarged(fused)))
    assert estimate.shape == (2, 3, 8, 8)


def test_fusion_of_the_deepest_level_has_nothing_to_weigh():
    fusion = Fusion(2, 3, 4, deepest=True).eval()
    stage = feature(2, 2, 4, 4)
    torch.testing.assert_close(fusion(stage, None, (4, 4))[1], fusion.reduce(stage))


def test_reviewkd_reviews_every_stage_and_the_mean_of_the_last():
    method = ReviewKD(ReviewConfig(), network(4, 8, 16), network(6, 12, 24))
    student, teacher = stages(4, 8, 16), stages(6, 12, 24, seed=10)
    terms = method(step(student, teacher))
    assert sorted(terms) == ["reviewkd/pooled", "reviewkd/stage1", "reviewkd/stage2", "reviewkd/stage3"]
    pooled = [features["stage3"].mean((2, 3), keepdim=True) for features in (student, teacher)]
    estimate, _ = method.fusions["pooled"](pooled[0], None, (1, 1))
    torch.testing.assert_close(terms["reviewkd/pooled"], F.mse_loss(estimate, pooled[1]))


def test_reviewkd_loss_at_a_stage_teaches_all_deeper_ones():
    student = {name: feature.requires_grad_() for name, feature in stages(4, 8, 16).items()}
    method = ReviewKD(ReviewConfig(), network(4, 8, 16), network(4, 8, 16))
    method(step(student, stages(4, 8, 16, seed=10)))["reviewkd/stage2"].backward()
    assert student["stage1"].grad is None
    assert student["stage2"].grad.any()
    assert student["stage3"].grad.any()


def test_reviewkd_does_not_depend_on_the_size_of_the_batch():
    method = ReviewKD(ReviewConfig(), network(4, 8), network(6, 12))
    student, teacher = stages(4, 8), stages(6, 12, seed=10)
    twice = [{name: torch.cat([x, x]) for name, x in features.items()} for features in (student, teacher)]
    torch.testing.assert_close(method(step(*twice)), method(step(student, teacher)))


def test_reviewkd_takes_a_last_stage_of_one_place_for_its_mean():
    pair = network(4, 8, image_size=2), network(4, 8, image_size=2)
    terms = ReviewKD(ReviewConfig(), *pair)(step(stages(4, 8, side=2), stages(4, 8, side=2, seed=10)))
    assert sorted(terms) == ["reviewkd/stage1", "reviewkd/stage2"]


def test_reviewkd_takes_maps_of_a_size_that_is_not_the_teachers():
    student, teacher = stages(4, 8, side=7), stages(4, 8, side=8, seed=10)
    terms = ReviewKD(ReviewConfig(), network(4, 8), network(4, 8))(step(student, teacher))
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize(("widths", "chosen"), [((4,), "auto"), ((4, 8), "last")])
def test_reviewkd_refuses_a_single_stage(widths, chosen):
    with pytest.raises(ModelError) as caught:
        ReviewKD(ReviewConfig(stages=chosen), network(*widths), network(4, 8))
    stage = f"stage{len(widths)}"
    assert str(caught.value).splitlines()[0] == (
        f"reviewkd: only one stage to compare, {stage!r} of the student: a stage is joined with the deeper ones"
    )
