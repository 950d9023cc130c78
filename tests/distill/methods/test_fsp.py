import pytest
import torch
from gradient import assert_gradient

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.fsp import Fsp, FspConfig, flow, fsp_loss
from kdedge.models.features import FeaturePoint

FORMS = ["normalized", "plain"]


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def maps(seed=0, channels=(2, 3), side=4):
    """Two stages, the second half the size of the first."""
    first, second = channels
    return feature(2, first, side, side, seed=seed), feature(2, second, side // 2, side // 2, seed=seed + 100)


def network(*widths):
    points = {f"stage{n + 1}": FeaturePoint("", width, 2**n) for n, width in enumerate(widths)}
    return Network(points, classes=10, image_size=8)


def enlarged(pair):
    return tuple(x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in pair)


def test_flow_by_hand():
    first = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]])  # (1, 2, 1, 2)
    second = torch.tensor([[[[3.0, 1.0]]]])
    assert flow(first, second).tolist() == [[[(1 * 3 + 2 * 1) / 2], [(0 * 3 + 4 * 1) / 2]]]


@pytest.mark.parametrize("larger", [0, 1])
def test_flow_averages_the_larger_map_down(larger):
    pair = [torch.tensor([[[[1.0, 3.0, 2.0, 6.0]]]]), torch.tensor([[[[5.0, 1.0]]]])]  # (1, 1, 1, 4), (1, 1, 1, 2)
    expected = (2 * 5 + 4 * 1) / 2
    assert flow(pair[larger], pair[1 - larger]).item() == expected


@pytest.mark.parametrize(("form", "by_hand"), [("normalized", 2 - 2 * 24 / 25), ("plain", ((3 - 8) ** 2 + 2**2) / 2)])
def test_fsp_loss_by_hand(form, by_hand):
    place = torch.ones(1, 1, 1, 1)
    student, teacher = torch.tensor([3.0, 4.0]), torch.tensor([8.0, 6.0])  # the matrices; (.6, .8) . (.8, .6) = 24/25
    pair = [(place, matrix.reshape(1, 2, 1, 1)) for matrix in (student, teacher)]
    assert fsp_loss(*pair, form).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("form", FORMS)
def test_fsp_loss_is_zero_for_equal_stages(form):
    assert fsp_loss(maps(), maps(), form).item() == pytest.approx(0, abs=1e-6)


def test_fsp_loss_does_not_depend_on_the_scale_of_the_features_when_normalized():
    scaled = tuple(10 * x for x in maps(1))
    torch.testing.assert_close(fsp_loss(scaled, maps(2), "normalized"), fsp_loss(maps(1), maps(2), "normalized"))


@pytest.mark.parametrize("form", FORMS)
def test_fsp_loss_does_not_depend_on_the_size_of_batch_and_maps(form):
    expected = fsp_loss(maps(1), maps(2), form)
    twice = [tuple(torch.cat([x, x]) for x in maps(seed)) for seed in (1, 2)]
    torch.testing.assert_close(fsp_loss(*twice, form), expected)
    torch.testing.assert_close(fsp_loss(enlarged(maps(1)), enlarged(maps(2)), form), expected)


@pytest.mark.parametrize("form", FORMS)
def test_fsp_loss_has_the_gradient_of_its_differences(form):
    teacher = tuple(x.double() for x in maps(2))
    assert_gradient(lambda first, second: fsp_loss((first, second), teacher, form), *maps(1))


def test_fsp_loss_of_a_dead_stage_has_a_finite_gradient():
    student = tuple(torch.zeros_like(x).requires_grad_() for x in maps())
    fsp_loss(student, maps(), "normalized").backward()
    assert all(x.grad.isfinite().all() for x in student)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_flow_computes_half_precision_features_in_float32(dtype):
    first, second = ((1000 * x).to(dtype) for x in maps())  # products are beyond float16
    with torch.autocast("cpu", dtype):
        result = flow(first, second)
    torch.testing.assert_close(result, flow(first.float(), second.float()), rtol=0, atol=0)


def test_fsp_paper_preset_is_the_published_formula():
    student, teacher = maps(1), maps(2)
    expected = 0.0
    for sample in range(2):
        for i in range(2):
            for j in range(3):
                entries = []
                for first, second in (student, teacher):
                    small = torch.nn.functional.adaptive_avg_pool2d(first[sample, i][None], 2)[0]
                    entries.append((small * second[sample, j]).mean())
                expected += (entries[0] - entries[1]) ** 2 / (2 * 2 * 3)
    method = Fsp(FspConfig(**Fsp.presets["paper"].options), network(2, 3), network(2, 3))
    views = [
        View(torch.zeros(2, 10), dict(zip(("stage1", "stage2"), pair, strict=True))) for pair in (student, teacher)
    ]
    terms = method.loss(Step(torch.zeros(2), torch.arange(2), *views, epoch=0, progress=0.0))
    torch.testing.assert_close(Fsp.presets["paper"].weight * terms["fsp/stage1-stage2"], expected)


def test_fsp_connects_each_stage_with_the_next_and_guides_other_widths():
    method = Fsp(FspConfig(), network(4, 8, 16), network(4, 6, 12))
    assert list(method.guides) == ["stage2", "stage3"]
    student, teacher = (
        {f"stage{n + 1}": feature(2, width, 8 >> n, 8 >> n, seed=n) for n, width in enumerate(widths)}
        for widths in ((4, 8, 16), (4, 6, 12))
    )
    views = [View(torch.zeros(2, 10), features) for features in (student, teacher)]
    terms = method.loss(Step(torch.zeros(2), torch.arange(2), *views, epoch=0, progress=0.0))
    assert list(terms) == ["fsp/stage1-stage2", "fsp/stage2-stage3"]
    assert (method.guides["stage2"](student["stage2"]) < 0).any()  # a teacher's stage need not end in a ReLU


def test_fsp_has_no_guide_for_equal_widths():
    assert not Fsp(FspConfig(), network(4, 8), network(4, 8)).state_dict()


@pytest.mark.parametrize(("student", "stages"), [((4,), "auto"), ((4, 8), "last"), ((4, 8), ["stage2"])])
def test_fsp_refuses_a_single_stage(student, stages):
    with pytest.raises(ModelError) as caught:
        Fsp(FspConfig(stages=stages), network(*student), network(4, 8))
    stage = f"stage{len(student)}"
    assert str(caught.value).splitlines()[0] == (
        f"fsp: only one stage to compare, {stage!r} of the student: a matrix is made from a stage and the next one"
    )
