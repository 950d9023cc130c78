import pytest
import torch
from fivelevels import SIDE, FiveLevels
from gradient import assert_gradient
from torch import nn

from kdedge.core.training import MethodUse
from kdedge.distill.base import Network, Step, View
from kdedge.distill.maps import resampled
from kdedge.distill.methods.pkd import Pkd, PkdConfig
from kdedge.distill.pearson import pearson_loss
from kdedge.distill.weights import term_weight
from kdedge.models.features import FeaturePoint


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(*widths):
    points = {f"stage{n + 1}": FeaturePoint("", width, 2**n) for n, width in enumerate(widths)}
    return Network(points, classes=10, image_size=8)


def step(student, teacher):
    views = [View(torch.zeros(2, 10), maps) for maps in (student, teacher)]
    return Step(torch.zeros(2), torch.arange(2), *views, epoch=0, progress=0.0)


def loss(student, teacher):
    return pearson_loss(*resampled(student, teacher))


def places(*values):
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 2, -1)


def test_pkd_loss_by_hand():
    """Deviations -3, -1, 1, 3 and -1, 1, -1, 1 of 20 and 4 squared: r = 4 / sqrt(80)."""
    method = Pkd(PkdConfig(), network(1), network(1))
    terms = method(step({"stage1": places(0, 2, 4, 6)}, {"stage1": places(1, 3, 1, 3)}))
    assert {name: term.item() for name, term in terms.items()} == {"pkd/stage1": pytest.approx(1 - 4 / 80**0.5)}


def test_pkd_is_half_the_squared_difference_of_normalized_channels():
    """The paper's definition, with the deviation of the population."""
    student, teacher = feature(3, 4, 5, 5, seed=1), feature(3, 4, 5, 5, seed=2)
    normed = [
        (x - x.mean(dim=(0, 2, 3), keepdim=True)) / x.std(dim=(0, 2, 3), keepdim=True, unbiased=False)
        for x in (student, teacher)
    ]
    torch.testing.assert_close(loss(student, teacher), (normed[0] - normed[1]).square().mean() / 2)


def test_pkd_is_zero_for_a_scaled_and_shifted_copy_and_two_for_its_opposite():
    maps = feature(2, 3, 4, 4)
    assert loss(3 * maps + 5, maps).item() == pytest.approx(0, abs=1e-6)
    assert loss(1 - maps, maps).item() == pytest.approx(2)


def test_pkd_resamples_the_students_map_to_the_teachers_size():
    """Bilinearly: 0 and 4 become 0, 1, 3 and 4."""
    student, teacher = torch.tensor([[[[0.0, 4.0]]]]), torch.tensor([[[[0.0, 1.0, 3.0, 4.0]]]])
    assert loss(student, teacher).item() == pytest.approx(0, abs=1e-6)
    assert loss(student, -teacher).item() == pytest.approx(2)


def test_pkd_does_not_depend_on_the_size_of_batch_and_maps():
    student, teacher = feature(2, 3, 4, 4, seed=1), feature(2, 3, 4, 4, seed=2)
    torch.testing.assert_close(loss(torch.cat([student] * 2), torch.cat([teacher] * 2)), loss(student, teacher))
    enlarged = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (student, teacher)]
    torch.testing.assert_close(loss(*enlarged), loss(student, teacher))


def test_pkd_has_the_gradient_of_its_differences():
    teacher = feature(2, 2, 4, 4, seed=2).double()
    assert_gradient(lambda student: loss(student, teacher), feature(2, 2, 3, 3, seed=1))


def test_pkd_aligns_other_widths_only():
    method = Pkd(PkdConfig(), network(4, 8), network(4, 6))
    assert isinstance(method.aligners["stage1"], nn.Identity)
    assert {name: tuple(p.shape) for name, p in method.named_parameters()} == {"aligners.stage2.weight": (6, 8, 1, 1)}


def test_pkd_compares_the_levels_of_detectors():
    student, teacher = FiveLevels(4).network(), FiveLevels(6).network()
    assert Pkd(PkdConfig(), student, teacher).student_features == ("p3", "p4", "p5", "p6", "p7")
    single = Pkd(PkdConfig(), FiveLevels(4, levels=1).network(), teacher)
    assert single.student_features == single.teacher_features == ("p3",)


def test_pkd_compares_named_levels_of_other_sizes():
    student, teacher = FiveLevels(4).network(), FiveLevels(4).network()
    method = Pkd(PkdConfig(stages=[("p4", "p3")]), student, teacher)
    maps = {name: feature(2, 4, SIDE // stride, SIDE // stride) for name, stride in (("p3", 8), ("p4", 16))}
    assert method(step(maps, maps))["pkd/p4"].isfinite()


@pytest.mark.parametrize(("weight", "terms"), [(6.0, {}), (10.0, Pkd.presets["paper"].terms)])
def test_pkd_weights_are_the_papers(weight, terms):
    use = MethodUse(name="pkd", terms={term: {"weight": value} for term, value in terms.items()})
    assert term_weight(use, Pkd.terms, "pkd/p3", 0.0) == weight
