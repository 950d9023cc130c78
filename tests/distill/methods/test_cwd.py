import math

import pytest
import torch
from fivelevels import FiveLevels
from gradient import assert_gradient
from pydantic import ValidationError

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.cwd import Cwd, CwdConfig, cwd_loss
from kdedge.models.features import FeaturePoint


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def log_places(*shares):
    """A channel of one row whose softmax over the places is these shares."""
    return torch.tensor(shares).log().reshape(1, 1, 1, -1)


def test_cwd_loss_by_hand():
    by_hand = 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
    assert cwd_loss(log_places(0.2, 0.8), log_places(0.5, 0.5), 1.0).item() == pytest.approx(by_hand)


def test_cwd_loss_at_a_temperature_by_hand():
    """At tau 2 shares of 0.2 and 0.8 become 1/3 and 2/3; tau^2 is 4."""
    by_hand = 4 * (0.5 * math.log(0.5 / (1 / 3)) + 0.5 * math.log(0.5 / (2 / 3)))
    assert cwd_loss(log_places(0.2, 0.8), log_places(0.5, 0.5), 2.0).item() == pytest.approx(by_hand, rel=1e-5)


def test_cwd_loss_is_the_mean_over_channels_and_samples():
    student = torch.cat([log_places(0.2, 0.8), log_places(0.5, 0.5)], dim=1)
    teacher = torch.cat([log_places(0.5, 0.5)] * 2, dim=1)
    one = cwd_loss(log_places(0.2, 0.8), log_places(0.5, 0.5), 1.0).item()
    assert cwd_loss(student, teacher, 1.0).item() == pytest.approx(one / 2)
    assert cwd_loss(torch.cat([student, teacher]), torch.cat([teacher] * 2), 1.0).item() == pytest.approx(one / 4)


def test_cwd_loss_is_zero_for_maps_that_differ_by_a_constant_of_each_channel():
    maps = feature(2, 3, 4, 4)
    assert cwd_loss(maps + feature(2, 3, 1, 1), maps, 1.0).item() == pytest.approx(0, abs=1e-6)


def test_cwd_loss_resamples_the_students_map():
    student = torch.tensor([[[[0.0, 4.0]]]])  # 0, 1, 3, 4 at the teacher's places
    assert cwd_loss(student, torch.tensor([[[[0.0, 1.0, 3.0, 4.0]]]]), 1.0).item() == pytest.approx(0, abs=1e-6)


def test_cwd_loss_does_not_depend_on_the_size_of_batch_and_maps():
    student, teacher = feature(2, 3, 4, 4, seed=1), feature(2, 3, 4, 4, seed=2)
    expected = cwd_loss(student, teacher, 2.0)
    torch.testing.assert_close(cwd_loss(torch.cat([student] * 2), torch.cat([teacher] * 2), 2.0), expected)
    enlarged = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (student, teacher)]
    torch.testing.assert_close(cwd_loss(*enlarged, 2.0), expected)


def test_cwd_loss_has_the_gradient_of_its_differences():
    teacher = feature(2, 2, 3, 3, seed=2).double()
    assert_gradient(lambda student: cwd_loss(student, teacher, 2.0), feature(2, 2, 3, 3, seed=1))


def test_cwd_loss_computes_half_precision_features_in_float32():
    student, teacher = ((100 * feature(2, 3, 4, 4, seed=n)).half() for n in (1, 2))
    assert cwd_loss(student, teacher, 1.0).item() == cwd_loss(student.float(), teacher.float(), 1.0).item()


def test_cwd_aligns_and_compares_every_stage():
    points = [{"stage1": FeaturePoint("", width, 1)} for width in (4, 6)]
    student, teacher = (Network(each, 10, 8) for each in points)
    method = Cwd(CwdConfig(tau=2.0), student, teacher)
    maps = feature(2, 4, 8, 8, seed=1), feature(2, 6, 8, 8, seed=2)
    views = [View(torch.zeros(2, 10), {"stage1": x}) for x in maps]
    terms = method(Step(torch.zeros(2), torch.arange(2), *views, epoch=0, progress=0.0))
    expected = cwd_loss(method.aligners["stage1"](maps[0]), maps[1], 2.0)
    assert {name: term.item() for name, term in terms.items()} == {"cwd/stage1": expected.item()}


def test_cwd_leaves_out_levels_of_one_place():
    method = Cwd(CwdConfig(), FiveLevels(4).network(), FiveLevels(6).network())
    assert method.student_features == ("p3", "p4", "p5", "p6")


def test_cwd_refuses_a_level_of_one_place():
    networks = FiveLevels(4).network(), FiveLevels(6).network()
    with pytest.raises(ModelError, match=r"^cwd: 'p7' of the student is a map of one place"):
        Cwd(CwdConfig(stages=["p7"]), *networks)


def test_cwd_config_refuses_a_temperature_of_zero():
    with pytest.raises(ValidationError):
        CwdConfig(tau=0)
