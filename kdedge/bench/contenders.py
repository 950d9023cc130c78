"""What a comparison holds against each other: ways to train one student, all with the same budget."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from kdedge.core.errors import KdedgeError, nearest
from kdedge.core.load import load_recipe
from kdedge.core.quality import Task
from kdedge.core.recipe import Model, Recipe
from kdedge.core.training import CrossEntropy, MethodUse, Phase, TermUse
from kdedge.distill.base import METHODS, Method
from kdedge.pipeline.distill import labels_only

LABELS, TUNED, STANDARDIZED = "labels", "logits tuned", "logits:standardized"
REFERENCES: dict[Task, tuple[str, ...]] = {"classify": (LABELS, TUNED, STANDARDIZED), "detect": (LABELS,)}
"""In every comparison, whatever is asked for: a detector has no plain KD that would suit any teacher."""
FROM_RECIPE = "recipe:"
TEMPERATURES = (2.0, 4.0)
WEIGHTS = ((0.5, 0.5), (0.1, 0.9), (0.1, 4.0))
"""Of the labels and of KD."""


@dataclass(frozen=True)
class Contender:
    """A line of the table."""

    label: str
    phases: tuple[Phase, ...]
    peers: tuple[Model, ...] = ()
    run: str = ""
    """Whose runs it has, if not its own: a contender of that label."""

    @property
    def run_name(self) -> str:
        return re.sub(r"[^A-Za-z0-9.-]+", "-", self.run or self.label).strip("-.")


def contender(item: str, base: Recipe) -> Contender:
    """From `labels`, METHOD, METHOD:PRESET, or recipe:NAME.

    Raises:
        KdedgeError: there is no such method, preset or recipe.
    """
    if item.startswith(FROM_RECIPE):
        return of_recipe(item, base)
    plain = labels_only(base.phases[0])
    if item == LABELS:
        return Contender(item, (plain,))
    name, _, preset = item.partition(":")
    kind = METHODS.get(name)
    peers = base.peers or ((base.student,) if kind.needs_peers else ())
    return Contender(item, (with_preset(plain, name, kind, preset) if preset else with_use(plain, name),), peers)


def with_use(phase: Phase, name: str) -> Phase:
    return phase.model_copy(update={"methods": (MethodUse(name=name),)})


def with_preset(phase: Phase, name: str, kind: type[Method], preset: str) -> Phase:
    if preset not in kind.presets:
        raise KdedgeError(f"method {name!r} has no preset {preset!r}", nearest(preset, kind.presets))
    given = kind.presets[preset]
    use = MethodUse(
        name=name,
        weight=given.weight,
        schedule=given.schedule,
        terms={pattern: TermUse(weight=weight) for pattern, weight in given.terms.items()},
        options=dict(given.options),
    )
    return weighed(phase, given.cross_entropy, use)


def weighed(phase: Phase, labels: float, use: MethodUse) -> Phase:
    cross_entropy = phase.cross_entropy.model_copy(update={"weight": labels})
    return phase.model_copy(update={"methods": (use,), "cross_entropy": cross_entropy})


def of_recipe(item: str, base: Recipe) -> Contender:
    """A recipe's phases and peers, within the base's epochs and by its optimizer."""
    found, budget = load_recipe(item.removeprefix(FROM_RECIPE)).recipe, base.phases[0]
    epochs = share_out(item, [phase.epochs for phase in found.phases], budget.epochs)
    phases = tuple(
        budget.model_copy(
            update={
                "epochs": count,
                "methods": phase.methods,
                "cross_entropy": with_smoothing(phase.cross_entropy, budget),
                "detection": phase.detection,
                "freeze": phase.freeze,
            }
        )
        for count, phase in zip(epochs, found.phases, strict=True)
    )
    return Contender(item, phases, found.peers)


def with_smoothing(cross_entropy: CrossEntropy, budget: Phase) -> CrossEntropy:
    """Label smoothing is the base's, like the optimizer."""
    return cross_entropy.model_copy(update={"label_smoothing": budget.cross_entropy.label_smoothing})


def share_out(item: str, parts: Sequence[int], total: int) -> list[int]:
    """`total` in the proportion of the parts, at least 1 each."""
    if total < len(parts):
        raise KdedgeError(f"{item} has {len(parts)} phases", f"{total} epochs are too few", f"--epochs {len(parts)}")
    ends = [0]
    for number in range(1, len(parts) + 1):
        end = round(total * sum(parts[:number]) / sum(parts))
        ends.append(min(max(end, ends[-1] + 1), total - len(parts) + number))
    return [end - start for start, end in pairwise(ends)]


def tuning(base: Recipe) -> list[Contender]:
    """Plain KD by every temperature and weight that it is tuned over, where it is a reference."""
    plain, found = labels_only(base.phases[0]), []
    if TUNED not in REFERENCES[base.task]:
        return []
    for temperature, (labels, weight) in product(TEMPERATURES, WEIGHTS):
        use = MethodUse(name="logits", weight=weight, options={"temperature": temperature})
        label = f"logits T={temperature:g} labels={labels:g} kd={weight:g}"
        found.append(Contender(label, (weighed(plain, labels, use),)))
    return found
