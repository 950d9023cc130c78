import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from steps import logit_step, preset_total, random_logits

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse
from kdedge.distill.base import Network, View
from kdedge.distill.methods.dml import Dml, DmlConfig, mutual_loss
from kdedge.distill.objective import build_methods

TEN = Network({}, 10, 8)
EVEN, UNEVEN = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])  # 1/2, 1/2 and 3/4, 1/4
TO_EVEN = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)  # KL(uneven || even)
TO_UNEVEN = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)  # KL(even || uneven)


def step_of(student, *peers, labels=None):
    views = tuple(map(View, peers))
    return dataclasses.replace(logit_step(student, student, labels), teacher=None, peers=views)


def terms_of(student, *peers, labels=None, **options):
    return Dml(DmlConfig(**options), TEN, None)(step_of(student, *peers, labels=labels))


def test_dml_of_two_networks_by_hand():
    terms = {name: term.item() for name, term in terms_of(EVEN, UNEVEN).items()}
    assert terms == pytest.approx(
        {
            "dml/student/kl": TO_EVEN,
            "dml/peer0/cross_entropy": math.log(4 / 3),  # the label is class 0
            "dml/peer0/kl": TO_UNEVEN,
        }
    )


def test_dml_of_three_networks_is_the_mean_over_the_others():
    terms = {name: term.item() for name, term in terms_of(EVEN, UNEVEN, EVEN).items() if name.endswith("kl")}
    assert terms == pytest.approx(
        {"dml/student/kl": TO_EVEN / 2, "dml/peer0/kl": TO_UNEVEN, "dml/peer1/kl": TO_EVEN / 2}
    )


def test_dml_networks_that_agree_have_nothing_to_tell_each_other():
    logits = random_logits()
    terms = terms_of(logits, logits + 3, logits - 1)
    assert [terms[f"dml/{who}/kl"].item() for who in ("student", "peer0", "peer1")] == pytest.approx([0] * 3, abs=1e-6)


def test_dml_cross_entropy_of_a_peer_is_that_of_the_labels():
    labels, peer = torch.tensor([3, 1, 4, 1, 5, 9]), random_logits(seed=1)
    terms = terms_of(random_logits(), peer, labels=labels)
    by_hand = -peer.softmax(1)[torch.arange(6), labels].log().mean()
    torch.testing.assert_close(terms["dml/peer0/cross_entropy"], by_hand)


def test_dml_each_network_is_moved_by_its_own_terms_alone():
    logits = [random_logits(seed=seed).requires_grad_() for seed in range(3)]
    terms = terms_of(*logits)
    for name, term in terms.items():
        owner = {"student": 0, "peer0": 1, "peer1": 2}[name.split("/")[1]]
        gradients = torch.autograd.grad(term, logits, allow_unused=True, retain_graph=True)
        assert [gradient is not None for gradient in gradients] == [number == owner for number in range(3)], name


def test_mutual_loss_gradient_leads_to_the_mean_of_the_others_probabilities():
    student, others = random_logits(samples=1).requires_grad_(), [random_logits(samples=1, seed=n) for n in (1, 2)]
    mutual_loss(student, others, 1.0).backward()
    mean = (others[0].softmax(1) + others[1].softmax(1)) / 2
    torch.testing.assert_close(student.grad, (student.softmax(1) - mean).detach())


def test_mutual_loss_gradient_is_that_of_its_finite_differences():
    others = [random_logits(seed=1), random_logits(seed=2)]
    assert_gradient(lambda logits: mutual_loss(logits, others, 3.0), random_logits())


def test_mutual_loss_does_not_depend_on_the_size_of_the_batch():
    student, peer = random_logits(), random_logits(seed=1)
    twice = mutual_loss(torch.cat([student, student]), [torch.cat([peer, peer])], 1.0)
    torch.testing.assert_close(twice, mutual_loss(student, [peer], 1.0))


def test_dml_uses_its_temperature():
    terms = terms_of(EVEN, 2 * UNEVEN, temperature=2.0)
    assert terms["dml/student/kl"].item() == pytest.approx(4 * TO_EVEN, rel=1e-6)
    assert terms["dml/peer0/cross_entropy"].item() == pytest.approx(math.log(10 / 9))  # of 9/10, 1/10: not softened


def test_dml_standardizes_what_networks_tell_each_other_and_not_their_answers():
    student, peer = random_logits(), random_logits(seed=1)
    usual = terms_of(student, peer, standardize=True)
    scaled = terms_of(5 * student, 0.1 * peer + 2, standardize=True)
    for name in ("dml/student/kl", "dml/peer0/kl"):
        torch.testing.assert_close(scaled[name], usual[name], rtol=1e-4, atol=1e-6)
    assert abs(scaled["dml/peer0/cross_entropy"] - usual["dml/peer0/cross_entropy"]) > 0.1


def test_dml_paper_preset_is_the_published_loss():
    student, peer, labels = random_logits(), random_logits(seed=1), torch.tensor([3, 1, 4, 1, 5, 9])
    p1, p2 = F.softmax(student, 1), F.softmax(peer, 1)
    to_student, to_peer = (p2 * (p2 / p1).log()).sum(1).mean(), (p1 * (p1 / p2).log()).sum(1).mean()
    of_labels = -p2[torch.arange(6), labels].log().mean()
    ours = preset_total("dml", "paper", step_of(student, peer, labels=labels), TEN, TEN)
    torch.testing.assert_close(ours, to_student + of_labels + to_peer, rtol=1e-5, atol=0)
    assert Dml.presets["paper"].cross_entropy == 1


def test_dml_needs_peers():
    with pytest.raises(ModelError) as caught:
        build_methods([MethodUse(name="dml")], TEN, [])
    assert str(caught.value).splitlines()[0] == "method 'dml' needs peers: the recipe has none"
