"""What each term of a loss is multiplied by as a phase goes on."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from kdedge.core.errors import ModelError, nearest
from kdedge.core.training import MethodUse, TermUse
from kdedge.distill.base import Term
from kdedge.distill.phases import schedule_factor

T = TypeVar("T")


def term_weight(use: MethodUse, own: Mapping[str, Term], term: str, progress: float) -> float:
    """The method's weight times the term's, each by its schedule; `own` is what the method says of its terms."""
    one = in_use(use, own, term)
    return use.weight * schedule_factor(use.schedule, progress) * one.weight * schedule_factor(one.schedule, progress)


def counts(use: MethodUse, own: Mapping[str, Term], term: str) -> bool:
    """Whether a term is weighed at any time."""
    return use.weight * in_use(use, own, term).weight > 0


def in_use(use: MethodUse, own: Mapping[str, Term], term: str) -> Term:
    """A term as the method has it, but for what the recipe says of it."""
    name = short_name(use, term)
    usual, given = first_fit(own, name) or Term(), first_fit(use.terms, name) or TermUse()
    weight = usual.weight if given.weight is None else given.weight
    return Term(weight, given.schedule or usual.schedule)


def first_fit(patterns: Mapping[str, T], name: str) -> T | None:
    return next((value for pattern, value in patterns.items() if fnmatchcase(name, pattern)), None)


def short_name(use: MethodUse, term: str) -> str:
    return term.removeprefix(f"{use.name}/")


def check_terms(use: MethodUse, terms: Iterable[str]) -> None:
    """Raises ModelError when the recipe speaks of a term that the method has not."""
    names = [short_name(use, term) for term in terms]
    for pattern in use.terms:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ModelError(f"method {use.name!r} has no term {pattern!r}", nearest(pattern, names))
