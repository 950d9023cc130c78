"""M-KD: soft targets, relations of layers, attention and a guide layer at once, half of which is to explore.

Min and Wang's M-KD (WASET) is public as an abstract only, without formulas and numbers, and for detectors: this is a
reconstruction, in the form for classifiers.  The abstract's five parts, each with the closest published definition:

    soft        T^2 KL(teacher || student) of the logits: methods.logits
    relation    ||G_s - G_t||^2 / ||G_t||^2, G the FSP matrix of a stage and the next: J. Yim et al., CVPR 2017
    attention   squared distance of spatial attention maps: S. Zagoruyko and N. Komodakis, arXiv:1612.03928
    guide       1 - r of each guided channel and the teacher's, r Pearson's correlation: PKD, arXiv:2207.02039
    explore     mean |r| of each exploring channel with each of the teacher's: after IE-KD, Z. Huang et al., CVPR 2021,
                arXiv:2107.00181, which has the cosine of encoded features

All are means over samples; relation, attention, guide and explore have a term for each stage (or two) that both
networks have.  Choices made here: the guide is a 1x1 convolution from the student's stage to twice the teacher's width.
One half, with BN, inherits: it is what guide and relation compare, so that widths may differ.  The other half explores:
it may hold anything but what the teacher has, and correlation being bounded it cannot outgrow the rest.  As both read
the same stage, that has to hold more than the teacher's features.  Attention needs no guide.  The weights are 1, 6 for
guide (PKD's on Faster R-CNN) and 0.1 for explore, which is off for the first fifth of the phase.  A weight of 0 takes a
part out, as in `terms: {explore/*: {weight: 0}}`.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.recipe import Schedule
from kdedge.distill.adapters import adapter
from kdedge.distill.base import METHODS, Method, Network, Step, Term, needed
from kdedge.distill.maps import SHORTEST
from kdedge.distill.methods.attention import attention_loss
from kdedge.distill.methods.fsp import Maps, flow
from kdedge.distill.methods.logits import LogitsConfig, check_classes, compared_logits, kd_loss
from kdedge.distill.pearson import likeness, pearson_loss
from kdedge.distill.stages import Pair, Stages, pair_stages
from kdedge.models.blocks import init_weights

Features = Mapping[str, Tensor]
"""(N, C, H, W) by stage."""
Counts = Callable[[str], bool]
"""Of a term's name after the method's."""


class MkdConfig(LogitsConfig):
    stages: Stages = "auto"
    """Stages to match, two at least, in their order: auto (all of one resolution), or names or pairs of names."""


def relation_loss(student: Maps, teacher: Maps) -> Tensor:
    """Scalar, from two stages of each network, of the same widths in both; 0 for a teacher that is silent."""
    ours, theirs = flow(*student), flow(*teacher)
    gap, size = (matrix.square().sum(dim=(1, 2)) for matrix in (ours - theirs, theirs))
    return torch.where(size > SHORTEST, gap / size.clamp_min(SHORTEST), 0.0).mean()


class Guide(nn.Module):
    """Takes a student's stage to what it inherits and to what it explores, each of the teacher's width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inherit: nn.Module = adapter(inputs, outputs, relu=False)
        self.explore: nn.Module = nn.Conv2d(inputs, outputs, 1, bias=False)  # correlated: BN would make no difference
        init_weights(self.explore)


class GuidedStages(nn.Module):
    """What M-KD says of stages, whatever the networks are for; a guide for each pair of them."""

    def __init__(self, pairs: Sequence[Pair], student: Network, teacher: Network) -> None:
        super().__init__()
        self.pairs = pairs
        widths = {s: (student.features[s].channels, teacher.features[t].channels) for s, t in pairs}
        self.guides: Mapping[str, Guide] = cast(
            Mapping[str, Guide], nn.ModuleDict({stage: Guide(*width) for stage, width in widths.items()})
        )
        self.relations = {f"relation/{s1}-{s2}": ((s1, t1), (s2, t2)) for (s1, t1), (s2, t2) in pairwise(pairs)}

    def prune(self, counts: Counts) -> None:
        """Drop the layers, and the pairs, that only terms which do not count need."""
        self.relations = {name: pairs for name, pairs in self.relations.items() if counts(name)}
        related = {pair for pairs in self.relations.values() for pair in pairs}
        kept = []
        for pair in self.pairs:
            stage = pair[0]
            attention, guide, explore = (counts(f"{part}/{stage}") for part in ("attention", "guide", "explore"))
            if not guide and pair not in related:
                self.guides[stage].inherit = nn.Identity()
            if not explore:
                self.guides[stage].explore = nn.Identity()
            if attention or guide or explore or pair in related:
                kept.append(pair)
        self.pairs = kept

    def forward(self, student: Features, teacher: Features, counts: Counts = lambda _: True) -> dict[str, Tensor]:
        """The terms of the student's and the teacher's features, which must carry no gradient."""
        inherited = {s: self.guides[s].inherit(student[s]) for s, _ in self.pairs}
        terms = {
            name: relation_loss((inherited[s1], inherited[s2]), (teacher[t1], teacher[t2]))
            for name, ((s1, t1), (s2, t2)) in self.relations.items()
        }
        for s, t in self.pairs:
            if counts(f"attention/{s}"):
                terms[f"attention/{s}"] = attention_loss(student[s], teacher[t], 2, "squared")
            if counts(f"guide/{s}"):
                terms[f"guide/{s}"] = pearson_loss(inherited[s], teacher[t])
            if counts(f"explore/{s}"):
                terms[f"explore/{s}"] = likeness(self.guides[s].explore(student[s]), teacher[t])
        return terms


@METHODS.register("mkd")
class Mkd(Method):
    Config = MkdConfig
    terms: ClassVar[Mapping[str, Term]] = {
        "soft": Term(1.0),
        "relation/*": Term(1.0),
        "attention/*": Term(1.0),
        "guide/*": Term(6.0),
        "explore/*": Term(0.1, Schedule(start=0.2)),
    }

    def __init__(self, config: MkdConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        check_classes("mkd", student, teacher)
        pairs = pair_stages("mkd", config.stages, student, teacher, places=True)
        if len(pairs) < 2:
            raise ModelError(
                f"mkd: only one stage to compare, {pairs[0][0]!r} of the student",
                "the relation of layers takes a stage and the next one",
                "name two or more pairs [student's, teacher's] in the option stages",
            )
        self.student_features, self.teacher_features = zip(*pairs, strict=True)
        self.stages = GuidedStages(pairs, student, teacher)
        self.config = config

    def prune(self) -> None:
        self.stages.prune(self.counts)
        self.student_features = tuple(s for s, _ in self.stages.pairs)
        self.teacher_features = tuple(t for _, t in self.stages.pairs)

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        if self.counts("soft"):
            terms["mkd/soft"] = kd_loss(*compared_logits(step, self.config.standardize), self.config.temperature)
        teacher = {stage: feature.detach() for stage, feature in step.taught.features.items()}
        found = self.stages(step.student.features, teacher, self.counts)
        return terms | {f"mkd/{name}": term for name, term in found.items()}
