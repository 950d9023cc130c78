"""Which stages of student and teacher a method compares."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from kdedge.core.errors import ModelError, nearest
from kdedge.distill.base import Network
from kdedge.models.features import match_stages

Pair = tuple[str, str]
"""A stage of the student and one of the teacher."""
Choice = Literal["auto", "middle", "last"]


def as_pair(stage: str | Pair) -> Pair:
    return (stage, stage) if isinstance(stage, str) else stage


def each_once(stages: Choice | tuple[str | Pair, ...]) -> Choice | tuple[str | Pair, ...]:
    """Raises ValueError where two terms of a method would have one name."""
    names = [] if isinstance(stages, str) else [student for student, _ in map(as_pair, stages)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"student stage listed twice: {', '.join(twice)}")
    return stages


Stages = Annotated[Choice | tuple[str | Pair, ...], Field(min_length=1), AfterValidator(each_once)]
"""The option `stages` of a method: auto takes every stage that both networks have at one resolution, middle the middle
one of these, last the last stage of each; otherwise names that both have, or pairs [student's, teacher's]."""


def pair_stages(method: str, stages: Stages, student: Network, teacher: Network, places: bool = False) -> list[Pair]:
    """The pairs that a method compares; where it compares `places`, auto leaves out maps of a single one.

    Raises:
        ModelError: a network has no such stage, none is shared, or `places` are asked for and there is one only.
    """
    if stages == "auto" or stages == "middle":
        pairs = matched_pairs(method, student, teacher, places)
        return pairs if stages == "auto" else [pairs[len(pairs) // 2]]
    pairs = [(last_stage(student), last_stage(teacher))] if stages == "last" else [as_pair(stage) for stage in stages]
    for whose, network, names in zip(("student", "teacher"), (student, teacher), zip(*pairs, strict=True), strict=True):
        check_stages(method, whose, network, names, places)
    return pairs


def matched_pairs(method: str, student: Network, teacher: Network, places: bool = False) -> list[Pair]:
    """Every stage the two networks share by resolution; with `places`, but for maps of a single one.

    Raises:
        ModelError: there is none.
    """
    shared = match_stages(student.stages, teacher.stages)
    pairs = [(s, t) for s, t in shared if not places or min(side(student, s), side(teacher, t)) > 1]
    if not pairs:
        raise one_place(method, "student", shared[0][0])
    return pairs


def check_stages(method: str, whose: str, network: Network, names: Sequence[str], places: bool = False) -> None:
    """Raises ModelError when the network lacks one of the stages or, with `places`, one is a single place."""
    for name in names:
        if name not in network.features:
            raise ModelError(f"{method}: the {whose} has no stage {name!r}", nearest(name, network.features))
        if places and side(network, name) < 2:
            raise one_place(method, whose, name)


def one_place(method: str, whose: str, stage: str) -> ModelError:
    return ModelError(
        f"{method}: {stage!r} of the {whose} is a map of one place",
        "once normalized it is the same for every image",
        "name an earlier stage, or use larger images",
    )


def side(network: Network, stage: str) -> int:
    """Side of the stage's map."""
    return math.ceil(network.image_size / network.features[stage].stride)


def last_stage(network: Network) -> str:
    """The deepest: of a classifier the stage before the last layer, whose mean is the penultimate feature."""
    return list(network.stages)[-1]
