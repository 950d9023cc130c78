import pickle
import sys

import pytest
import torch
from torch import nn

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.models import code
from kdedge.models.zoo import build_model

NET = """\
from pathlib import Path

from torch import nn

(Path(__file__).parent / "ran").touch()


class Net(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2)
        self.linear = nn.Linear(width, classes)

    def forward(self, images):
        return self.linear(self.conv(images).mean(dim=(2, 3)))


def build(classes, image_shape, width=4):
    return Net(classes, width)


def wrong(classes, image_shape):
    return "no network"
"""


@pytest.fixture(autouse=True)
def consent(monkeypatch):
    """A command's own: given, and looking nowhere yet."""
    monkeypatch.setattr(code, "CONSENT", own := code.Consent(given=True))
    yield own
    for name in own.modules:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    code.look_in(tmp_path)
    return tmp_path


def build(name="net.py:build", **options):
    return build_model(name, options, 10, (3, 16, 16))


@pytest.mark.usefixtures("folder")
def test_model_of_a_file_is_what_its_function_makes():
    assert build(width=8)(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    assert build(width=8).conv.out_channels == 8


def test_file_does_not_run_unless_it_is_allowed(folder, consent):
    consent.given = False
    with pytest.raises(KdedgeError, match="does not run by itself\n  read that file, then give --allow-code"):
        build()
    assert not (folder / "ran").exists()


def test_file_runs_once_a_command(folder):
    build()
    (folder / "ran").unlink()
    build()
    assert not (folder / "ran").exists()


def test_file_is_looked_for_beside_the_recipe_before_here(folder, tmp_path_factory, monkeypatch):
    here = tmp_path_factory.mktemp("here")
    (here / "net.py").write_text("raise ValueError")
    monkeypatch.chdir(here)
    assert code.code_file("net.py:build") == folder / "net.py"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nets.py:build", "model nets.py:build: there is no nets.py"),
        ("net.py:biuld", "model net.py:biuld: the file has no function 'biuld': did you mean 'build'?"),
        ("net.py:wrong", "model net.py:wrong is a str\n  return a torch.nn.Module"),
    ],
)
def test_name_that_gives_no_network_is_refused(name, message):
    with pytest.raises(ModelError) as caught:
        build(name)
    assert str(caught.value).startswith(message)


def test_file_that_fails_is_not_half_loaded(folder):
    (folder / "net.py").write_text("import kdedge_no_such_module")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            build()


def test_network_of_a_file_is_unpickled_in_a_process_that_ran_the_file(folder, consent):
    files, content = [folder / "net.py"], pickle.dumps(build())
    for name in consent.modules:
        del sys.modules[name]
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(content)
    code.load_again(files)
    assert isinstance(pickle.loads(content), nn.Module)
