"""Deep mutual learning: networks that train together learn from one another's probabilities, with no teacher.

Y. Zhang, T. Xiang, T. M. Hospedales, H. Lu: "Deep Mutual Learning", CVPR 2018, arXiv:1706.00384, sec. 3.

    CE(labels, p_k) + mean over the others of KL(p_other || p_k)    for each network k

The student is one of them, its cross-entropy the phase's; the recipe's `peers` are the others, and their terms stand
here: all that trains them.  So a weight or a schedule of the method as a whole weighs their labels too; to weigh what
the networks learn from each other, give it to the terms: `terms: {"*/kl": {weight: 2}}`.
What a network learns from carries no gradient, and T is 1 as in the paper.  The paper updates one network after the
other and predicts anew in between; here all take the same step.  Peers start from weights of their own.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.distill.base import METHODS, Method, Network, Preset, Step, Term
from kdedge.distill.methods.logits import LogitsConfig, compared, kd_loss


class DmlConfig(LogitsConfig):
    temperature: float = Field(1.0, gt=0)
    """What all networks' logits are divided by."""


def mutual_loss(logits: Tensor, others: Sequence[Tensor], temperature: float) -> Tensor:
    """Scalar, from a network's (N, classes) logits and those of others, which get no gradient: mean of the KLs."""
    return torch.stack([kd_loss(logits, other.detach(), temperature) for other in others]).mean()


@METHODS.register("dml")
class Dml(Method):
    Config = DmlConfig
    needs_teacher = False
    needs_peers = True
    terms: ClassVar[Mapping[str, Term]] = {"student/kl": Term(), "peer*/cross_entropy": Term(), "peer*/kl": Term()}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset("CIFAR-100 and Market-1501, any batch", options={"temperature": 1.0})
    }

    def __init__(self, config: DmlConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        logits = [view.logits for view in (step.student, *step.peers)]
        heard = [compared(each, self.config.standardize) for each in logits]
        kl = [
            mutual_loss(each, heard[:number] + heard[number + 1 :], self.config.temperature)
            for number, each in enumerate(heard)
        ]
        terms = {"dml/student/kl": kl[0]}
        for number, peer in enumerate(step.peers):
            terms[f"dml/peer{number}/cross_entropy"] = F.cross_entropy(peer.logits.float(), step.labels)
            terms[f"dml/peer{number}/kl"] = kl[number + 1]
        return terms
