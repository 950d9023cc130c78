"""M-KD: soft targets, relations of layers, attention and a guide layer at once, half of which is to explore.

Min and Wang's M-KD (WASET) is for detectors, and public as an abstract only, without formulas and numbers: this is a
reconstruction, for detectors and classifiers.  The abstract's five parts, each with the closest published definition:

    soft        T^2 KL(teacher || student) of the logits: methods.logits; of a detector's anchors: methods.box_logits
    relation    squared distance of FSP matrices of a stage and the next: J. Yim et al., CVPR 2017: methods.fsp
    attention   squared distance of spatial attention maps: S. Zagoruyko and N. Komodakis, arXiv:1612.03928
    guide       1 - r of each guided channel and the teacher's, r Pearson's correlation: PKD, arXiv:2207.02039
    explore     mean |r| of each exploring channel with each of the teacher's: after IE-KD, Z. Huang et al., CVPR 2021,
                arXiv:2107.00181, which has the cosine of encoded features

All are means over samples; relation, attention, guide and explore have a term for each stage (or two) that both
networks have; for detectors these are the first three levels, p3 to p5 in most.  Choices made here: the guide is a 1x1
convolution from the student's stage to twice the teacher's width.  One half, with BN, inherits: it is what guide and
relation compare, so that widths may differ.  The other half explores: it may hold anything but what the teacher has,
and correlation being bounded it cannot outgrow the rest.  As both read the same stage, that has to hold more than the
teacher's features.  Attention needs no guide.  FSP matrices are compared at unit length: next to a teacher's that is
short the difference of any other is large, and trainings diverged.  The weights are 1, 6 for guide (PKD's on Faster
R-CNN) and 0.1 for explore, which is off for the first fifth of the phase.  A weight of 0 takes a part out, as in
`terms: {explore/*: {weight: 0}}`; soft has to go where detectors have other anchors than their teacher, relation where
there is a single level.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.training import Schedule
from kdedge.distill.adapters import adapter
from kdedge.distill.base import EITHER, METHODS, Method, Network, Step, Term, needed
from kdedge.distill.methods.attention import attention_loss
from kdedge.distill.methods.box_logits import check_anchors, classification_loss
from kdedge.distill.methods.fsp import Maps, fsp_loss
from kdedge.distill.methods.logits import LogitsConfig, check_classes, compared_logits, kd_loss
from kdedge.distill.pearson import likeness, pearson_loss
from kdedge.distill.stages import Pair, Stages, pair_stages
from kdedge.models.blocks import init_weights

Features = Mapping[str, Tensor]
"""(N, C, H, W) by stage."""
DETECTOR_LEVELS = 3
WITHOUT_RELATION, WITHOUT_SOFT = "terms: {relation/*: {weight: 0}}", "terms: {soft: {weight: 0}}"
Counts = Callable[[str], bool]
"""Of a term's name after the method's."""


class MkdConfig(LogitsConfig):
    stages: Stages = "auto"
    """Stages to match in their order, two at least unless relations have no weight: auto (all of one resolution, of
    detectors the first three), or names or pairs of names."""


def relation_loss(student: Maps, teacher: Maps) -> Tensor:
    """Scalar, 0..4, from two stages of each network, of the same widths in both."""
    return fsp_loss(student, teacher, "normalized")


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
    tasks = EITHER
    detector_options: ClassVar[Mapping[str, Any]] = {"temperature": 1.0}
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
        if student.layout and config.stages == "auto":
            pairs = pairs[:DETECTOR_LEVELS]
        if student.layout and config.standardize:
            raise ModelError("mkd: standardize is for classifiers", "the student is a detector", "standardize: false")
        self.student_features, self.teacher_features = zip(*pairs, strict=True)
        self.stages = GuidedStages(pairs, student, teacher)
        self.config, self.student, self.teacher = config, student, teacher

    def prune(self) -> None:
        """Also raises ModelError where a term that counts cannot be computed."""
        first = self.student_features[0]
        if not self.stages.relations and self.counts(f"relation/{first}"):
            raise ModelError(
                f"mkd: only one stage to compare, {first!r} of the student",
                "the relation of layers takes a stage and the next one",
                "name two or more pairs [student's, teacher's] in the option stages, or go without: "
                + WITHOUT_RELATION,
            )
        if self.student.layout and self.counts("soft"):
            check_anchors("mkd", self.student, self.teacher, WITHOUT_SOFT)
        self.stages.prune(self.counts)
        self.student_features = tuple(s for s, _ in self.stages.pairs)
        self.teacher_features = tuple(t for _, t in self.stages.pairs)

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        if self.counts("soft"):
            terms["mkd/soft"] = self.soft(step)
        teacher = {stage: feature.detach() for stage, feature in step.taught.features.items()}
        found = self.stages(step.student.features, teacher, self.counts)
        return terms | {f"mkd/{name}": term for name, term in found.items()}

    def soft(self, step: Step) -> Tensor:
        c, layout = self.config, self.student.layout
        if layout:
            return classification_loss(step.student.logits, step.taught.logits.detach(), layout, c.temperature)
        return kd_loss(*compared_logits(step, c.standardize), c.temperature)
