import importlib
import sys
from pathlib import Path

import pytest

from kdedge.core.errors import KdedgeError
from kdedge.core.registry import Registry


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    """A registry over a package of two modules that is written for the test."""
    package = tmp_path / "zoo_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "registry.py").write_text(
        "from kdedge.core.registry import Registry\nZOO = Registry('animal', 'zoo_package')\n"
    )
    (package / "cats.py").write_text(
        "from zoo_package.registry import ZOO\nZOO.register('tiger')('striped')\nZOO.register('lion')('maned')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("zoo_package", "zoo_package.registry", "zoo_package.cats"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    registry: Registry[str] = importlib.import_module("zoo_package.registry").ZOO
    return registry


def test_registry_finds_what_the_modules_of_its_package_register(zoo: Registry[str]) -> None:
    assert zoo.names() == ["lion", "tiger"]
    assert zoo.get("lion") == "maned"


def test_registry_suggests_the_nearest_name(zoo: Registry[str]) -> None:
    with pytest.raises(KdedgeError) as caught:
        zoo.get("tigre")
    assert str(caught.value) == "unknown animal 'tigre': did you mean 'tiger'?"


def test_registry_refuses_a_second_entry_of_one_name(zoo: Registry[str]) -> None:
    with pytest.raises(ValueError, match="two animals are called 'lion'"):
        (zoo.names(), zoo.register("lion")("other"))


def test_registry_scans_again_after_a_module_failed_to_import(zoo: Registry[str], tmp_path: Path) -> None:
    broken = tmp_path / "zoo_package" / "dogs.py"
    broken.write_text("import a_package_that_is_not_there\n")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
            zoo.names()
