import pytest

from kdedge.core.training import MethodUse, Schedule
from kdedge.distill.base import Term
from kdedge.distill.weights import term_weight

OWN = {"stage*": Term(5.0, Schedule(warmup=0.5)), "logits": Term(2.0)}


def weight(term, progress=1.0, **use):
    return term_weight(MethodUse.model_validate({"name": "some", **use}), OWN, f"some/{term}", progress)


def test_term_weight_is_what_the_method_says_of_it():
    assert [weight("stage1"), weight("logits"), weight("other")] == [5, 2, 1]


def test_term_weight_follows_the_methods_own_schedule():
    assert weight("stage2", progress=0.25) == 2.5


def test_term_weight_of_the_recipe_keeps_the_methods_schedule():
    assert weight("stage2", progress=0.25, terms={"stage2": {"weight": 8}}) == 4


def test_term_schedule_of_the_recipe_keeps_the_methods_weight():
    assert weight("stage2", progress=0.25, terms={"stage*": {"schedule": {"start": 0.5}}}) == 0


def test_term_weight_takes_the_first_pattern_that_fits():
    assert weight("stage2", terms={"stage2": {"weight": 1}, "stage*": {"weight": 9}}) == 1


def test_term_weight_is_multiplied_by_the_methods():
    assert weight("logits", weight=3, schedule={"decay_at": [0.5], "decay": 0.5}) == pytest.approx(3)
