from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from safetensors.torch import load_file
from steps import preset_total
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from trainings import left, train_until

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.job import Job
from kdedge.distill.methods.attention import attention_loss
from kdedge.distill.methods.hybrid_attention import (
    HybridAttention,
    HybridAttentionConfig,
    Moments,
    Selection,
    activations,
    channel_loss,
)
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import train
from kdedge.models.features import FeaturePoint

ONE_PLACE = (
    "hybrid_attention: 'stage1' of the student is a map of one place: once normalized it is the same for every image"
)


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(*widths, image_size=32):
    """A network of stages of these widths; each but the first halves the map."""
    points = {f"stage{n + 1}": FeaturePoint("", width, 2**n) for n, width in enumerate(widths)}
    return Network(points, classes=10, image_size=image_size)


def view(*widths, samples=3, seed=0):
    stages = {f"stage{n + 1}": feature(samples, c, 32 >> n, 32 >> n, seed=seed + n) for n, c in enumerate(widths)}
    return View(torch.zeros(samples, 10), stages)


def step(student, teacher):
    count = torch.arange(len(student.logits))
    return Step(count, count, student, teacher, epoch=0, progress=0.0)


def hybrid(student, teacher, **options):
    return HybridAttention(HybridAttentionConfig(**options), student, teacher)


def chosen(method, stage="stage1"):
    return method.selections[stage].chosen.nonzero().flatten().tolist()


def test_activations_by_hand():
    assert activations(torch.tensor([[[[1.0, -3.0]], [[2.0, 4.0]]]])).tolist() == [[0.5, 3.0]]  # (1, 2, 1, 2)


def test_channel_loss_by_hand():
    student, teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[8.0, 6.0], [0.0, 2.0]])
    cosines = (0.6 * 0.8 + 0.8 * 0.6, 0.0)
    assert channel_loss(student, teacher).item() == pytest.approx(sum((1 - cosine) ** 2 for cosine in cosines) / 2)


def test_channel_loss_is_zero_for_vectors_that_differ_by_scale():
    x = activations(feature(4, 5, 3, 3))
    assert channel_loss(x, 7 * x).item() == pytest.approx(0, abs=1e-9)


def test_channel_loss_gradient():
    teacher = activations(feature(3, 4, 2, 2, seed=1)).double()
    assert_gradient(lambda student: channel_loss(activations(student), teacher), feature(3, 4, 2, 2))


def test_channel_loss_of_dead_channels_has_a_finite_gradient():
    student = torch.zeros(2, 4, requires_grad=True)
    loss = channel_loss(student, torch.ones(2, 4))
    loss.backward()
    assert loss.item() == 1
    assert student.grad.isfinite().all()


def test_channel_term_does_not_depend_on_the_size_of_batch_and_maps():
    maps = feature(2, 4, 4, 4), feature(2, 4, 2, 2, seed=1)
    expected = channel_loss(*map(activations, maps))
    twice = [torch.cat([x, x]) for x in maps]
    enlarged = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in maps]
    torch.testing.assert_close(channel_loss(*map(activations, twice)), expected)
    torch.testing.assert_close(channel_loss(*map(activations, enlarged)), expected)


def test_activations_of_half_precision_are_in_float32():
    assert activations(torch.full((1, 1, 64, 64), 60000.0).half()).tolist() == [[60000.0]]  # the sum is beyond float16


def test_moments_over_batches_are_those_of_all_rows():
    rows = 100 + feature(17, 3)
    moments = Moments()
    for batch in rows.split((5, 1, 8, 3)):
        moments.add(batch)
    torch.testing.assert_close(moments.score("mean"), rows.mean(0))
    torch.testing.assert_close(moments.score("std"), rows.std(0, correction=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(moments.score("l2"), rows.square().mean(0).sqrt())


def test_selection_keeps_the_best_channels_in_their_order():
    selection = Selection(4, 2)
    selection.choose(torch.tensor([0.3, 0.1, 0.4, 0.2]))
    assert selection(torch.tensor([[10.0, 11.0, 12.0, 13.0]])).tolist() == [[10.0, 12.0]]
    selection.choose(torch.tensor([0.0, 1.0, 1.0, 1.0]))
    assert selection.chosen.tolist() == [False, True, True, False]


def test_selection_survives_a_moving_average_of_the_weights():
    selection = Selection(50, 25)
    selection.choose(feature(50))
    average = AveragedModel(selection, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(3):
        average.update_parameters(selection)
    assert torch.equal(average.module.chosen, selection.chosen)


@pytest.mark.parametrize(("select", "expected"), [("std", 0), ("mean", 1), ("l2", 2)])
def test_channel_is_chosen_by_its_share_over_the_calibration_batches(select, expected):
    """Deviations .37, 0, .25; means .37, .6, .55; root mean squares .524, .6, .604."""
    shares = torch.tensor([[0.55**0.5, 0.6, 0.3], [0.0, 0.6, 0.8]])
    images = torch.tensor([[1.0], [5.0]]) * shares  # the length of an image's vector does not count
    maps = images.reshape(2, 1, 3, 1, 1).expand(-1, -1, -1, 32, 32)
    method = hybrid(network(1), network(3), select=select)
    method.prepare((view(), View(torch.zeros(1, 10), {"stage1": image})) for image in maps)
    assert chosen(method) == [expected]


def test_channels_that_are_off_in_every_image_are_not_chosen():
    maps = feature(8, 4, 32, 32)
    maps[:, :2] = -maps[:, :2].abs()
    method = hybrid(network(2), network(4))
    assert chosen(method) == [0, 1]
    method.prepare([(view(), View(torch.zeros(8, 10), {"stage1": maps}))])
    assert chosen(method) == [2, 3]


def test_terms_compare_each_map_with_the_whole_teacher_and_channels_with_the_chosen():
    student, teacher = view(2, 4), view(4, 4, seed=10)
    method = hybrid(network(2, 4), network(4, 4))
    method.selections["stage1"].choose(torch.tensor([0.0, 1.0, 0.0, 1.0]))
    terms = method(step(student, teacher))
    one, two = ((student.features[s], teacher.features[s]) for s in ("stage1", "stage2"))
    expected = {
        "spatial/stage1": attention_loss(*one, 2, "squared"),
        "channel/stage1": channel_loss(activations(one[0]), activations(one[1][:, [1, 3]])),
        "spatial/stage2": attention_loss(*two, 2, "squared"),
        "channel/stage2": channel_loss(*map(activations, two)),
    }
    torch.testing.assert_close(terms, {f"hybrid_attention/{name}": value for name, value in expected.items()})
    spatial = hybrid(network(2, 4), network(4, 4), select_spatial=True)
    spatial.load_state_dict(method.state_dict())
    expected = attention_loss(one[0], one[1][:, [1, 3]], 2, "squared")
    torch.testing.assert_close(spatial(step(student, teacher))["hybrid_attention/spatial/stage1"], expected)


def test_terms_are_zero_for_a_student_that_is_the_teacher():
    same = view(2, 4, 8)
    terms = hybrid(network(2, 4, 8), network(2, 4, 8))(step(same, same))
    assert len(terms) == 6
    assert [value.item() for value in terms.values()] == pytest.approx([0] * 6, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "selected", "adapted"),
    [({}, ["stage2"], ["stage3"]), ({"select": "none"}, [], ["stage2", "stage3"])],
)
def test_widths_are_met_by_choice_or_by_an_adapter(options, selected, adapted):
    student, teacher = network(4, 4, 8), network(4, 8, 6)
    method = hybrid(student, teacher, **options)
    assert (list(method.selections), list(method.adapters)) == (selected, adapted)
    assert method.calibration_batches == (10 if selected else 0)
    assert len(method(step(view(4, 4, 8), view(4, 8, 6, seed=10)))) == 6


def test_equal_widths_need_no_layers_and_no_calibration():
    method = hybrid(network(4, 8), network(4, 8))
    assert not method.state_dict()
    assert method.calibration_batches == 0


@pytest.mark.parametrize(
    ("stages", "student", "line"),
    [
        (["stage9"], network(4), "hybrid_attention: the student has no stage 'stage9': did you mean 'stage1'?"),
        ("last", network(4, image_size=1), ONE_PLACE),
        ("auto", network(4, image_size=1), ONE_PLACE),
    ],
)
def test_hybrid_attention_refuses_stages(stages, student, line):
    with pytest.raises(ModelError) as caught:
        hybrid(student, network(4), stages=stages)
    assert str(caught.value).splitlines()[0] == line


def published(student, teacher, chosen=None):
    """The authors' sum over three stages of features after ReLU; `chosen` channels of the last, of one width before."""
    total = 0.0
    for n, k in enumerate((0.01, 0.1, 1)):
        ours, theirs = student[f"stage{n + 1}"], teacher[f"stage{n + 1}"]
        if chosen is not None and n == 2:
            theirs = theirs[:, chosen]
        maps = [F.normalize(x.pow(2).mean(1).view(x.size(0), -1)) for x in (ours, theirs)]
        total = total + 10 * 100 * k * (maps[0] - maps[1]).pow(2).mean()
        if ours.shape == theirs.shape:
            cosine = F.cosine_similarity(ours.mean((2, 3)), theirs.mean((2, 3)))
            total = total + 10 * k * (1 - cosine).pow(2).mean()
    return total


def after_relu(seen):
    return View(seen.logits, {stage: feature.relu() for stage, feature in seen.features.items()})


def test_paper_preset_is_the_published_sum():
    student, teacher = after_relu(view(4, 8, 16)), after_relu(view(4, 8, 16, seed=10))
    networks = network(4, 8, 16), network(4, 8, 16)
    found = preset_total("hybrid_attention", "paper", step(student, teacher), *networks)
    torch.testing.assert_close(found, published(student.features, teacher.features))


def test_paper_preset_chooses_channels_of_the_last_stage_from_one_batch():
    student, teacher = after_relu(view(4, 8, 16, samples=8)), after_relu(view(8, 16, 32, samples=8, seed=10))
    preset = HybridAttention.presets["paper"]
    method = hybrid(network(4, 8, 16), network(8, 16, 32), **preset.options)
    assert method.calibration_batches == 1
    method.prepare([(student, teacher)])
    embedding = F.normalize(teacher.features["stage3"].mean((2, 3)))
    best = embedding.std(0).topk(16).indices.sort().values
    assert chosen(method, "stage3") == best.tolist()
    terms = method(step(student, teacher))
    assert list(terms) == [f"hybrid_attention/{part}" for part in preset.terms if part[-1] == "3" or part[0] == "s"]
    total = sum(preset.terms[term.partition("/")[2]] * value for term, value in terms.items())
    torch.testing.assert_close(total, published(student.features, teacher.features, best))


def test_chosen_channels_survive_interruption_and_the_next_phase(
    make_job: Callable[..., Job], teacher: FrozenTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use = {"methods": [{"name": "hybrid_attention", "options": {"calibration_batches": 2}}]}
    phases = {"epochs": 2, "ema": 0.9, **use}, {"epochs": 1, **use}  # 4 steps an epoch
    whole, halted, resumed = (
        make_job(*phases, teachers=(teacher,), folder=tmp_path / folder) for folder in ("whole", "halted", "halted")
    )
    train(whole)
    train_until(halted, 6)
    monkeypatch.setattr(HybridAttention, "prepare", None)  # to choose again is an error
    train(resumed)
    assert left(resumed) == left(whole)
    masks = load_file(whole.folder / "methods.safetensors")
    for stage, count in (("stage1", 4), ("stage2", 8)):
        mask = masks[f"hybrid_attention.selections.{stage}.chosen"]
        assert mask.sum() == count
        assert not mask[:count].all(), "only the first ones, as before the choice"
