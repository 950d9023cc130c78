"""Steps of training made by hand, and what a method makes of one."""

import torch
from torch import Tensor

from kdedge.core.training import MethodUse
from kdedge.distill.base import METHODS, Network, Step, View
from kdedge.distill.weights import term_weight


def random_logits(samples: int = 6, classes: int = 10, scale: float = 3.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(samples, classes, generator=torch.Generator().manual_seed(seed))


def logit_step(student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Step:
    """From (N, classes) logits; every label is 0 unless given."""
    count = torch.arange(len(student))
    given = torch.zeros_like(count) if labels is None else labels
    return Step(given, count, View(student), View(teacher), epoch=0, progress=0.0)


def preset_total(name: str, preset: str, step: Step, student: Network, teacher: Network) -> Tensor:
    """What a method's preset adds to the labels' loss at the end of a phase."""
    kind = METHODS.get(name)
    given = kind.presets[preset]
    terms = {pattern: {"weight": weight} for pattern, weight in given.terms.items()}
    use = MethodUse.model_validate({"name": name, "weight": given.weight, "terms": terms, "options": given.options})
    method = kind(kind.Config.model_validate(use.options), student, teacher)
    weighed = [term_weight(use, kind.terms, term, 1.0) * value for term, value in method(step).items()]
    return torch.stack(weighed).sum()
