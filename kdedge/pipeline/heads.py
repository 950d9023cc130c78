"""What is exported of a student: all of it, what leads to one of its exits, or all of it with its exits."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from kdedge.core.errors import ModelError
from kdedge.core.recipe import Recipe
from kdedge.core.report import ExitPoint
from kdedge.data.sets import Dataset
from kdedge.distill.base import METHODS, Method
from kdedge.distill.exits import Branched, exit_stages
from kdedge.distill.job import Job
from kdedge.export.onnx import NO_EXITS, OUTPUT, Outputs
from kdedge.models.features import feature_points
from kdedge.models.weights import load_weights
from kdedge.pipeline.networks import build_peers, untrained_teacher


@dataclass(frozen=True)
class Exported:
    """A network, what it is traced as, and what comes out of that."""

    network: nn.Module
    """Gives the logits of `outputs`."""
    traced: nn.Module
    """The same, with the feature maps of `outputs`."""
    outputs: Outputs = NO_EXITS
    exits: tuple[ExitPoint, ...] = ()


def choose_exits(recipe: Recipe, dataset: Dataset, student: nn.Module, folder: Path | None = None) -> Exported:
    """What `export.exits` asks for.

    Args:
        folder: holds the weights that the exits were trained to; without it they are random.

    Raises:
        ModelError: there is no such exit.
    """
    wanted = recipe.export.exits
    if wanted == "none":
        return Exported(student, student)
    methods = built_methods(recipe, dataset, student)
    name = trainer_of_exits(methods, wanted)
    if folder:
        load_weights(nn.ModuleDict(methods), folder / "methods.safetensors")
    points = feature_points(student, dataset.image_shape)
    stages = [*exit_stages(student, methods[name].eval(), points, dataset.image_shape), list(points)[-1]]
    names = [f"{number}/{len(stages)}" for number in range(1, len(stages) + 1)]

    def upto(*stages: str, features: tuple[str, ...] = ()) -> Branched:
        return Branched(student, methods[name], points, stages, features).eval()

    def point(name: str, output: str, *stages: str) -> ExitPoint:
        price = upto(*stages).cost(dataset.image_shape)
        return ExitPoint(name=name, stage=stages[-1], output=output, params=price.params, macs=price.macs)

    if wanted == "all":
        logits = (*(f"exit{number}" for number in range(1, len(stages))), OUTPUT)
        exits = [point(names[k], logits[k], *stages[: k + 1]) for k in range(len(stages))]
        features = tuple(stages[:-1])
        outputs = Outputs(logits, features, wanted)
        return Exported(upto(*stages), upto(*stages, features=features), outputs, tuple(exits))
    if wanted not in names:
        valid = f"valid: {', '.join(names)} (the whole student), all, none"
        raise ModelError(f"export.exits {wanted}", valid, f"kdedge export --exit {names[-2]}")
    end = stages[names.index(wanted)]
    return Exported(upto(end), upto(end), Outputs(exit=wanted), (point(wanted, OUTPUT, end),))


def built_methods(recipe: Recipe, dataset: Dataset, student: nn.Module) -> dict[str, Method]:
    """Those of the last phase, whose layers are kept."""
    teachers = tuple(untrained_teacher(teacher, dataset, recipe.seed) for teacher in recipe.teachers)
    peers = build_peers(recipe.peers, dataset, recipe.seed)
    job = Job(
        "exits", student, dataset, recipe.data, recipe.phases, recipe.run, recipe.seed, Path(), "", teachers, peers
    )
    return job.methods(recipe.phases[-1])


def trains_exits(method: type[Method]) -> bool:
    return method.exits is not Method.exits


def trainer_of_exits(methods: dict[str, Method], wanted: str) -> str:
    found = [name for name, method in methods.items() if trains_exits(type(method))]
    if not found:
        able = ", ".join(name for name in METHODS.names() if trains_exits(METHODS.get(name)))
        why = "no method in the recipe's last phase trains exits; valid without one: none"
        raise ModelError(f"export.exits {wanted}", why, f"a method that does: {able}")
    if len(found) > 1:
        why = f"{' and '.join(found)} both train exits, and which are meant is not said"
        raise ModelError(f"export.exits {wanted}", why, "keep one of them in the recipe's last phase")
    return found[0]
