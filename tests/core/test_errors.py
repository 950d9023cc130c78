from pathlib import Path

import pytest

from kdedge.core import errors
from kdedge.core.errors import KdedgeError, MissingTool, nearest, require


def test_exit_codes_tell_the_kinds_of_failure_apart() -> None:
    codes = {kind.__name__: kind.exit_code for kind in KdedgeError.__subclasses__()}
    assert codes == {
        "RecipeError": 2,
        "DataError": 2,
        "ModelError": 2,
        "TrainingError": 2,
        "GateFailed": 1,
        "Incomparable": 3,
        "Unstable": 4,
        "MissingTool": 5,
    }
    assert all(f"{name:<17}" in str(errors.__doc__) for name in codes)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("no run here",), "no run here"),
        (("no run here", "the folder is empty"), "no run here: the folder is empty"),
        (("no run here", "the folder is empty", "kdedge run"), "no run here: the folder is empty\n  kdedge run"),
        (("2 problems", "", "one\n  two"), "2 problems\n  one\n  two"),
    ],
)
def test_error_reads_what_why_and_the_line_to_type(parts: tuple[str, ...], text: str) -> None:
    assert str(KdedgeError(*parts)) == text


def test_require_imports_what_is_there() -> None:
    assert require("json.decoder", "train", "reading").__name__ == "json.decoder"


def test_require_names_the_extra_of_a_missing_package() -> None:
    with pytest.raises(MissingTool) as caught:
        require("no_such_package.part", "train", "training")
    assert str(caught.value) == 'no_such_package is not installed: training needs it\n  pip install "kdedge[train]"'


def test_require_passes_on_a_failure_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_there.py").write_text("import another_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="another_that_is_missing"):
        require("half_there", "train", "training")


@pytest.mark.parametrize(
    ("name", "valid", "sentence"),
    [
        ("resnet65", ["resnet56", "vgg11"], "did you mean 'resnet56'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [], "known: none"),
    ],
)
def test_nearest_helps_with_a_misspelt_name(name: str, valid: list[str], sentence: str) -> None:
    assert nearest(name, valid) == sentence
