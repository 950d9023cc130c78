import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from safetensors.torch import load_file

from kdedge.distill.base import Network, Step, View
from kdedge.distill.job import Job
from kdedge.distill.methods.crd import Bank, Crd, CrdConfig, contrast_loss
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import train
from kdedge.models.features import FeaturePoint


def directions(*shape, seed=0):
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def crd(images=100, widths=(4, 6), **options):
    torch.manual_seed(0)
    networks = [Network({"last": FeaturePoint("", width, 1)}, 10, 8, images) for width in widths]
    return Crd(CrdConfig(**({"negatives": 16, "dimensions": 8} | options)), *networks)


def step(indices, labels, seed=0, widths=(4, 6)):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(len(indices), width, 2, 2, generator=generator) for width in widths]
    views = [View(torch.zeros(len(indices), 10), {"last": feature}) for feature in features]
    return Step(torch.tensor(labels), torch.tensor(indices), *views, epoch=0, progress=0.0)


def test_contrast_loss_by_hand():
    embedding, positive = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    negatives, other = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.tensor([[True, True]])
    kz = 2 * math.exp(1 / (2 * 2))  # two negatives, two dimensions, temperature 1
    h = [x / (x + kz) for x in (math.e, 1, 1 / math.e)]  # inner products 1, 0, -1
    expected = -math.log(h[0]) - math.log(1 - h[1]) - math.log(1 - h[2])
    assert contrast_loss(embedding, positive, negatives, other, 1.0).item() == pytest.approx(expected)


def test_contrast_loss_leaves_out_negatives_of_the_same_class_and_counts_the_others_for_them():
    embedding, positive, negatives = directions(1, 8), directions(1, 8, seed=1), directions(4, 8, seed=2)

    def loss(*other):
        return contrast_loss(embedding, positive, negatives, torch.tensor([other], dtype=torch.bool), 0.5)

    alone = loss(0, 0, 0, 0)
    rejected = [loss(*row) - alone for row in torch.eye(4).int().tolist()]  # each of them counted four times
    torch.testing.assert_close(loss(1, 1, 1, 1) - alone, sum(rejected) / 4)
    torch.testing.assert_close(loss(1, 0, 1, 0) - alone, (rejected[0] + rejected[2]) / 2)
    torch.testing.assert_close(
        alone, F.softplus(math.log(4) + 1 / (2 * 8 * 0.25) - embedding @ positive.T / 0.5).mean()
    )


def test_crd_paper_preset_is_the_published_formula():
    count, images, temperature = 50, 1000, 0.07
    embedding, positive, negatives = directions(3, 128), directions(3, 128, seed=1), directions(count, 128, seed=2)
    rows = torch.cat([positive.unsqueeze(1), negatives.expand(3, -1, -1)], dim=1)  # (N, 1 + K, d)
    z = images * math.exp(1 / (2 * 128 * temperature**2))
    p = torch.exp((rows @ embedding.unsqueeze(2)).squeeze(2) / temperature) / z
    noise = count / images
    log_d1, log_d0 = torch.log(p[:, 0] / (p[:, 0] + noise)), torch.log(noise / (p[:, 1:] + noise))
    published = 0.8 * -(log_d1.sum() + log_d0.sum()) / 3
    ours = contrast_loss(embedding, positive, negatives, torch.ones(3, count, dtype=torch.bool), temperature)
    torch.testing.assert_close(Crd.presets["paper"].weight * Crd.terms["*"].weight * ours, published)
    usual = CrdConfig(**Crd.presets["paper"].options)
    assert (usual.dimensions, usual.negatives, usual.temperature, usual.momentum) == (128, 16384, 0.07, 0.5)


def test_crd_scale_of_random_rows_is_what_it_is_taken_for():
    rows = directions(20_000, 128)
    assert torch.exp(rows @ directions(1, 128, seed=1).T / 0.07).mean().item() == pytest.approx(
        math.exp(1 / (2 * 128 * 0.07**2)), rel=0.03
    )


def test_contrast_loss_has_the_gradient_of_its_differences():
    rows = directions(3, 4, seed=1).double(), directions(5, 4, seed=2).double()
    other = torch.rand(3, 5, generator=torch.Generator().manual_seed(3)) > 0.3
    assert_gradient(lambda embedding: contrast_loss(embedding, *rows, other, 0.1), directions(3, 4))


def test_contrast_loss_does_not_depend_on_the_size_of_the_batch():
    embedding, positive, negatives = directions(3, 4), directions(3, 4, seed=1), directions(6, 4, seed=2)
    other = torch.rand(3, 6, generator=torch.Generator().manual_seed(3)) > 0.3
    twice = [torch.cat([x, x]) for x in (embedding, positive)]
    torch.testing.assert_close(
        contrast_loss(*twice, negatives, torch.cat([other, other]), 0.07),
        contrast_loss(embedding, positive, negatives, other, 0.07),
    )


def test_contrast_loss_is_in_float32_under_autocast():
    parts = directions(3, 128), directions(3, 128, seed=1), directions(50, 128, seed=2), torch.ones(3, 50)
    with torch.autocast("cpu", torch.float16):
        loss = contrast_loss(*parts, 0.07)
    torch.testing.assert_close(loss, contrast_loss(*parts, 0.07), rtol=0, atol=0)


def test_bank_keeps_a_share_of_the_row():
    bank = Bank(3, 2)
    first, second = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    bank.blend(torch.tensor([0, 2]), first, 0.0)
    assert bank.rows.tolist() == [[1, 0], [0, 0], [0, 1]]
    bank.blend(torch.tensor([0, 2]), second, torch.tensor([[0.25], [1.0]]))
    torch.testing.assert_close(bank.rows, torch.tensor([[0.1**0.5, 0.9**0.5], [0, 0], [0, 1]]))


def test_crd_remembers_an_image_from_its_first_step_on():
    method, now = crd(), step([7, 30], [1, 2])
    method(now)
    embedded = crd().student(now.student.features["last"])
    torch.testing.assert_close(method.student_bank.rows[[7, 30]], embedded)
    assert method.labels[[7, 30]].tolist() == [1, 2]
    assert (method.labels >= 0).sum() == 2


def test_crd_holds_an_embedding_against_the_other_network_and_what_it_remembers():
    method, labels = crd(negatives=3), [0, 1, 2]
    method(step([0, 1, 2], labels, seed=1))
    mine, theirs = method.student_bank.rows.clone(), method.teacher_bank.rows.clone()
    again = step([2, 0, 1], [2, 0, 1], seed=2)
    method.draw = lambda: torch.tensor([0, 0, 2])
    terms = method(again)
    other = torch.tensor([[True, True, False], [False, False, True], [True, True, True]])
    student, teacher = (
        network(view.features["last"])
        for network, view in ((method.student, again.student), (method.teacher, again.teacher))
    )
    rows, drawn = [2, 0, 1], [0, 0, 2]
    torch.testing.assert_close(terms["crd/student"], contrast_loss(student, theirs[rows], theirs[drawn], other, 0.07))
    torch.testing.assert_close(terms["crd/teacher"], contrast_loss(teacher, mine[rows], mine[drawn], other, 0.07))
    torch.testing.assert_close(method.student_bank.rows[rows], F.normalize(mine[rows] + student, dim=1))


def test_crd_draws_only_images_that_were_met():
    method = crd(negatives=1000)
    method(step([3, 50, 99], [0, 1, 2]))
    assert method.draw().unique().tolist() == [3, 50, 99]


def test_crd_draws_from_the_random_state_that_checkpoints_keep():
    method = crd()
    method(step([3, 50, 99], [0, 1, 2]))
    state = torch.get_rng_state()
    first, second = method.draw(), method.draw()
    torch.set_rng_state(state)
    assert torch.equal(method.draw(), first)
    assert not torch.equal(first, second)


def test_crd_with_images_of_a_single_class_only_pulls():
    method, now = crd(), step([0, 1, 2], [4, 4, 4])
    terms = method(now)
    offset = math.log(16) + 1 / (2 * 8 * 0.07**2)
    student = method.student(now.student.features["last"])
    positive = method.teacher(now.teacher.features["last"])
    expected = F.softplus(offset - (student * positive).sum(1) / 0.07).mean()
    torch.testing.assert_close(terms["crd/student"], expected)


def test_crd_keeps_the_rows_of_all_processes(
    make_job: Callable[..., Job], teacher: FrozenTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "0")  # which Fabric sets, and is to be forgotten
    monkeypatch.delenv("MASTER_PORT")
    use = {"name": "crd", "options": {"negatives": 32, "dimensions": 4}}
    job = make_job({"epochs": 1, "batch": 8, "methods": [use]}, teachers=(teacher,), run={"devices": 2})
    train(job)
    kept = load_file(job.folder / "methods.safetensors")
    assert torch.equal(kept["crd.labels"], job.dataset.train.labels)
    assert kept["crd.student_bank.rows"].norm(dim=1).allclose(torch.ones(64))
