"""Every name of TensorRT's that the code uses exists where it is used, whatever the version."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trtnames
from trtnames import BEHIND, MODULE, OVERRIDDEN, TABLES, Use, carried, collected, having, members, uses, uses_in

from kdedge.engine import trt_calibrator, trt_config, trt_options

VERSIONS = ["8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"]


def test_list_covers_the_versions_that_boards_have() -> None:
    assert carried()["versions"] == VERSIONS


@pytest.mark.parametrize("use", sorted(uses(), key=str), ids=lambda use: f"{use.kind}.{use.member}")
def test_name_exists_in_every_version_or_is_asked_for(use: Use) -> None:
    where = having(use.kind, use.member)
    assert where, f"{use.place}: no version has {use.kind}.{use.member}"
    if (use.kind, use.member) in BEHIND:
        assert having(*BEHIND[use.kind, use.member]) <= where
    elif not use.guarded:
        missing = set(VERSIONS) - where
        assert not missing, f"{use.place}: {use.kind}.{use.member} is not in {', '.join(sorted(missing))}"


@pytest.mark.parametrize(("kind", "member"), [(kind, name) for kind, names in TABLES.items() for name in names])
def test_name_of_a_table_exists_in_some_version(kind: str, member: str) -> None:
    assert having(kind, member)


def test_tables_here_hold_what_the_tables_of_the_code_do() -> None:
    flags = {*trt_config.SWITCHES.values(), *trt_config.TYPED_FLAGS.values()}
    levels = {name.upper() for name in trt_options.CHOICES["hardware_compatibility"]} - {"NONE"}
    assert set(TABLES["BuilderFlag"]) == flags
    assert set(TABLES["HardwareCompatibilityLevel"]) == levels
    assert set(TABLES[MODULE]) == set(trt_calibrator.KINDS.values())


@pytest.mark.parametrize(("kind", "member"), [(kind, name) for kind, names in OVERRIDDEN.items() for name in names])
def test_method_that_tensorrt_calls_is_one_that_it_has(kind: str, member: str) -> None:
    assert having(kind, member) == having(MODULE, kind)


def test_strong_typing_has_another_number_in_version_11() -> None:
    flags = [members("NetworkDefinitionCreationFlag", version) for version in ("8.6.1", "10.16.1.11", "11.4.0.106")]
    assert flags == [{"EXPLICIT_BATCH": 0}, {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, {"STRONGLY_TYPED": 0}]


def test_carried_list_is_that_of_the_full_ones(needs: Callable[[object, str], None]) -> None:
    needs(trtnames.API, trtnames.HOW)
    made = collected(Path(trtnames.API))
    assert carried() == made, "python tests/support/trtnames.py $KDEDGE_TENSORRT_API"


CODE = """
def plain(trt, builder):
    builder.platform_has_fast_fp16
    trt.BuilderFlag.FP16

def careful(trt, engine, config):
    if hasattr(config, "progress_monitor"):
        config.progress_monitor = None
    return getattr(trt, "EngineStat", None)
"""


def test_uses_are_found_with_their_guards() -> None:
    found = {(use.kind, use.member, use.guarded) for use in uses_in("trt_build", CODE)}
    assert found == {
        ("Builder", "platform_has_fast_fp16", False),
        (MODULE, "BuilderFlag", False),
        ("BuilderFlag", "FP16", False),
        ("IBuilderConfig", "progress_monitor", True),
        (MODULE, "EngineStat", True),
    }
