"""Losses, and their gradients by the student, are those of torchdistill up to an exact factor.

Compared in part:
    fsp   The matrices, for maps of one size.  Of their difference torchdistill sums the L2 norms of the columns, where
          the paper has the square; and it brings maps of two sizes together by maxima, kdedge by means.
    crd   A step from given banks, with given negatives and normalization.  torchdistill measures the normalization in
          its first batch and cannot draw negatives (it reads an attribute that it never sets).  It does not center the
          embeddings, and has no rules for images that were not met yet or are of one class.
    ickd  The loss of what was embedded: the student is embedded by a 3x3 convolution there, here by a 1x1.
Not compared:
    sp    torchdistill divides the rows by their L1 norm, the paper by their L2 norm: its normalize(z, 1) is p = 1.
    What torchdistill does not have: dkd, nkd, ofa, mgd and self_distill among others.
"""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from steps import logit_step, preset_total, random_logits
from torch import Tensor, nn
from torchdistill.losses import mid_level
from torchdistill.models.adaptation import ConvReg
from torchdistill.models.wrapper import AttentionBasedFusion, Regressor4VID

from kdedge.distill.base import METHODS, Method, Network, Step, View
from kdedge.distill.maps import pooled
from kdedge.distill.methods.attention import attention_loss
from kdedge.distill.methods.fsp import flow
from kdedge.distill.methods.reviewkd import context_loss
from kdedge.models.features import FeaturePoint

pytestmark = pytest.mark.oracle

Features = dict[str, Tensor]
SAMPLES, CLASSES, IMAGES = 64, 10, 1000
SIDES = {"stage1": 32, "stage2": 16, "stage3": 8}
LABELS = torch.arange(SAMPLES) % CLASSES
TINY = 1e-12
"""What torchdistill adds inside logarithms, less than its 1e-7: that moves a loss by more than rounding does."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(*widths: int) -> Network:
    points = {
        name: FeaturePoint(name, width, 32 // side) for (name, side), width in zip(SIDES.items(), widths, strict=True)
    }
    return Network(points, CLASSES, image_size=32, images=IMAGES)


def random_features(network: Network, seed: int) -> Features:
    """Of either sign, with something in common between samples and places."""
    return {
        name: 0.3 + random(SAMPLES, point.channels, SIDES[name], SIDES[name], seed=seed + SIDES[name])
        for name, point in network.features.items()
    }


NETWORKS = network(2, 3, 5), network(3, 4, 6)
STUDENT, TEACHER = random_features(NETWORKS[0], seed=0), random_features(NETWORKS[1], seed=1)
LAST = {"stage3": STUDENT["stage3"]}
LOGITS, TEACHER_LOGITS = {"logits": random_logits(SAMPLES, CLASSES)}, random_logits(SAMPLES, CLASSES, seed=1)


def step(student: Features) -> Step:
    count = torch.arange(SAMPLES)
    views = (View(torch.zeros(SAMPLES, CLASSES), features) for features in (student, TEACHER))
    return Step(count, count, *views, epoch=0, progress=0.0)


def build(name: str, **options: object) -> Method:
    torch.manual_seed(0)
    kind = METHODS.get(name)
    return kind(kind.Config(**options), *NETWORKS)


def total(method: Method, student: Features) -> Tensor:
    return torch.stack(list(method(step(student)).values())).sum()


def layer(name: str) -> dict[str, str]:
    return {"path": name, "io": "output"}


def layers(name: str) -> dict[str, str]:
    """Where a loss of torchdistill finds its two inputs."""
    return {f"{whose}_module_{key}": value for whose in ("student", "teacher") for key, value in layer(name).items()}


def pairs(weight: float, *names: str) -> dict[str, dict[str, object]]:
    """Where a loss of torchdistill finds several."""
    return {name: {"student": layer(name), "teacher": layer(name), "weight": weight} for name in names}


def outputs(**tensors: object) -> dict[str, dict[str, object]]:
    """What it finds there."""
    return {name: {"output": tensor} for name, tensor in tensors.items()}


def penultimate(features: Features) -> dict[str, dict[str, object]]:
    return outputs(penultimate=pooled(features["stage3"]))


def with_weights_of(source: nn.Module, module: nn.Module) -> nn.Module:
    """The module with the source's parameters and buffers: the same in the same order, under other names."""
    module.load_state_dict(dict(zip(module.state_dict(), source.state_dict().values(), strict=True)))
    return module


def assert_agree(ours: Callable[[Features], Tensor], theirs: Callable[[Features], Tensor], student: Features) -> None:
    """Two losses, and their gradients by each of the student's tensors, are equal to 1e-5 of the largest number."""
    results = []
    for loss in (ours, theirs):
        inputs = {name: tensor.clone().requires_grad_() for name, tensor in student.items()}
        value = loss(inputs).squeeze()
        results.append((value, *torch.autograd.grad(value, list(inputs.values()))))
    for left, right in zip(*results, strict=True):
        largest = right.detach().abs().max()
        torch.testing.assert_close(left / largest, right / largest, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("preset", "theirs"),
    [
        ("cifar", mid_level.KDLoss(**layers("logits"), temperature=4.0, alpha=0.1)),
        ("imagenet", mid_level.KDLoss(**layers("logits"), temperature=1.0, alpha=0.5)),
        ("standardized", mid_level.LogitStdKDLoss(**layers("logits"), temperature=2.0, alpha=0.1, beta=9.0)),
    ],
    ids=["cifar", "imagenet", "standardized"],
)
def test_logits_preset_with_its_cross_entropy_agrees(preset, theirs):
    labels_weight = METHODS.get("logits").presets[preset].cross_entropy

    def ours(student):
        labels_loss = F.cross_entropy(student["logits"], LABELS)
        distilled = preset_total("logits", preset, logit_step(student["logits"], TEACHER_LOGITS, LABELS), *NETWORKS)
        return labels_weight * labels_loss + distilled

    assert_agree(ours, lambda student: theirs(outputs(**student), outputs(logits=TEACHER_LOGITS), LABELS), LOGITS)


@pytest.mark.parametrize(("preset", "temperature"), [("paper", 4.0), ("imagenet", 1.0)])
def test_dist_preset_agrees(preset, temperature):
    theirs = mid_level.DISTLoss(**layers("logits"), beta=2.0, gamma=2.0, tau=temperature)
    assert_agree(
        lambda student: preset_total("dist", preset, logit_step(student["logits"], TEACHER_LOGITS), *NETWORKS),
        lambda student: theirs(outputs(**student), outputs(logits=TEACHER_LOGITS)),
        LOGITS,
    )


def test_attention_preset_agrees():
    theirs = mid_level.ATLoss(pairs(1000.0, *SIDES))
    assert_agree(
        lambda student: preset_total("attention", "paper", step(student), *NETWORKS),
        lambda student: theirs(outputs(**student), outputs(**TEACHER)),
        STUDENT,
    )


def test_attention_loss_in_the_form_of_the_paper_agrees():
    theirs = mid_level.ATLoss(pairs(1.0, "stage3"), mode="paper")
    assert_agree(
        lambda student: attention_loss(student["stage3"], TEACHER["stage3"], p=2, form="paper"),
        lambda student: theirs(outputs(**student), outputs(**TEACHER)),
        LAST,
    )


def test_fitnet_preset_agrees():
    method = build("fitnet", stages=["stage3"])
    theirs = ConvReg(5, 6, kernel_size=1, stride=1, padding=0)
    theirs.load_state_dict(method.adapters["stage3"].state_dict(), strict=False)  # it has a bias, which its BN undoes
    weight = METHODS.get("fitnet").presets["benchmark"].terms["*"]
    assert_agree(
        lambda student: weight * total(method, student),
        lambda student: 100 * F.mse_loss(theirs(student["stage3"]), TEACHER["stage3"]),
        LAST,
    )


def test_pkt_preset_agrees():
    theirs = mid_level.PKTLoss(**layers("penultimate"), eps=TINY)
    assert_agree(
        lambda student: preset_total("pkt", "benchmark", step(student), *NETWORKS),
        lambda student: 30000 * theirs(penultimate(student), penultimate(TEACHER)),
        LAST,
    )


def test_rkd_preset_agrees():
    theirs = mid_level.RKDLoss("penultimate", "penultimate", dist_factor=25.0, angle_factor=50.0, reduction="mean")
    assert_agree(
        lambda student: preset_total("rkd", "benchmark", step(student), *NETWORKS),
        lambda student: theirs(penultimate(student), penultimate(TEACHER)),
        LAST,
    )


def test_vid_agrees_from_the_same_initial_variance():
    method, regressors = build("vid"), {}
    for name, gaussian in method.gaussians.items():
        student_width, teacher_width = (each.features[name].channels for each in NETWORKS)
        regressor = Regressor4VID(student_width, teacher_width, teacher_width, eps=1e-5, init_pred_var=5.0)
        torch.testing.assert_close(gaussian.alpha, regressor.soft_plus_param)
        regressors[name] = with_weights_of(gaussian, regressor)
    theirs = mid_level.VIDLoss(pairs(1.0, *SIDES))
    assert_agree(
        lambda student: total(method, student),
        lambda student: theirs(
            outputs(**{name: regressors[name](x) for name, x in student.items()}), outputs(**TEACHER)
        ),
        STUDENT,
    )


def test_ickd_agrees_up_to_the_batch():
    method = build("ickd")
    embed = method.adapters["stage3"]
    theirs = mid_level.ChSimLoss(pairs(1.0, "stage3"))  # divides by the batch twice
    assert_agree(
        lambda student: total(method, student),
        lambda student: SAMPLES * theirs(outputs(stage3=embed(student["stage3"])), outputs(**TEACHER)),
        LAST,
    )


def test_fsp_matrix_agrees():
    second = random(SAMPLES, 4, 8, 8, seed=2)
    weights = random(SAMPLES, 5, 4, seed=3)
    assert_agree(
        lambda student: (weights * flow(student["stage3"], second)).sum(),
        lambda student: (weights * mid_level.FSPLoss.compute_fsp_matrix(student["stage3"], second)).sum(),
        LAST,
    )


@pytest.mark.parametrize("side", [8, 4, 3, 1])
def test_reviewkd_context_loss_agrees(side):
    teacher = random(SAMPLES, 4, side, side, seed=1)
    theirs = mid_level.HierarchicalContextLoss(**layers("level"))
    assert_agree(
        lambda student: context_loss(student["level"], teacher),
        lambda student: theirs(outputs(level=(student["level"], None)), outputs(level=teacher)),
        {"level": random(SAMPLES, 4, side, side)},
    )


def test_reviewkd_agrees():
    method, fusions = build("reviewkd"), {}
    for name, fusion in method.fusions.items():
        width, teacher_width = (each.features.get(name, each.features["stage3"]).channels for each in NETWORKS)
        fusions[name] = AttentionBasedFusion(width, 5, teacher_width, uses_attention=name != "pooled")
        with_weights_of(fusion.reduce, fusions[name].conv1)
        with_weights_of(fusion.expand, fusions[name].conv2)
        if name != "pooled":
            with_weights_of(fusion.weigh, fusions[name].attention_conv)
    context = mid_level.HierarchicalContextLoss(**layers("level"))

    def theirs(student):
        mine, wanted = (x | {"pooled": x["stage3"].mean((2, 3), keepdim=True)} for x in (student, TEACHER))
        losses, deeper = [], None
        for name in ("pooled", "stage3", "stage2", "stage1"):
            estimate, deeper = fusions[name](mine[name], deeper, size=SIDES.get(name, 1))
            losses.append(context(outputs(level=(estimate, deeper)), outputs(level=wanted[name])))
        return torch.stack(losses).sum()

    assert_agree(lambda student: total(method, student), theirs, STUDENT)


def test_crd_step_agrees_in_loss_and_banks(monkeypatch):
    negatives, temperature, dimensions = torch.arange(SAMPLES, SAMPLES + 50), 0.07, 128
    method = build("crd", negatives=len(negatives))
    theirs = mid_level.CRDLoss("embedded", "sampled", "embedded", dimensions, IMAGES, len(negatives), IMAGES, eps=TINY)
    theirs.params[2:4] = IMAGES * math.exp(1 / (2 * dimensions * temperature**2))
    banks = (method.student_bank.rows, theirs.memory_v1), (method.teacher_bank.rows, theirs.memory_v2)
    for seed, bank in enumerate(banks):
        for rows in bank:
            rows.copy_(F.normalize(random(IMAGES, dimensions, seed=seed), dim=1))
    method.labels.copy_(torch.arange(IMAGES))  # all were met, each of a class of its own
    monkeypatch.setattr(method, "draw", lambda: negatives)
    own = torch.arange(SAMPLES)
    sampled = {"pos_idx": own, "contrast_idx": torch.cat([own[:, None], negatives.expand(SAMPLES, -1)], dim=1)}
    assert_agree(
        lambda student: total(method, student),
        lambda student: theirs(
            outputs(embedded=method.student(student["stage3"])) | {"sampled": {"input": sampled}},
            outputs(embedded=method.teacher(TEACHER["stage3"])),
        ),
        LAST,
    )
    for rows, expected in banks:
        torch.testing.assert_close(rows, expected)
