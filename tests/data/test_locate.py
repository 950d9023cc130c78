import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from kdedge.core.errors import DataError, KdedgeError
from kdedge.core.recipe import Data
from kdedge.data.build import DATASETS
from kdedge.data.locate import LAYOUTS, data_root, locate, stamp


def files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def test_layouts_are_those_of_the_readers():
    assert sorted(LAYOUTS) == DATASETS.names()


def test_data_root_prefers_the_recipe_then_the_environment_then_the_cache(monkeypatch):
    monkeypatch.setenv("KDEDGE_CACHE", "/cache")
    monkeypatch.setenv("KDEDGE_DATA", "/environment")
    assert data_root(Data(name="svhn", root="/recipe")) == Path("/recipe")
    assert data_root(Data(name="svhn")) == Path("/environment")
    monkeypatch.delenv("KDEDGE_DATA")
    assert data_root(Data(name="svhn")) == Path("/cache/data")


def test_data_root_expands_the_home_folder():
    assert data_root(Data(name="svhn", root="~/sets")) == Path.home() / "sets"


def test_locate_prefers_the_published_folder_to_the_archive(tmp_path):
    spec = Data(name="cifar10", root=str(tmp_path))
    assert locate(Data(name="cifar10", root=str(files(tmp_path, "cifar10.npz")))) == tmp_path / "cifar10.npz"
    files(tmp_path, "cifar-10-batches-py/test_batch")
    assert locate(spec) == tmp_path / "cifar-10-batches-py"


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"digits"}))
def test_locate_says_where_it_looked_and_how_to_get_a_missing_set(name, tmp_path, monkeypatch):
    empty = LAYOUTS[name]._replace(places=tuple(place.lstrip("/") for place in LAYOUTS[name].places))
    monkeypatch.setitem(LAYOUTS, name, empty)  # a set of the system's does not count here
    with pytest.raises(DataError) as caught:
        locate(Data(name=name, root=str(tmp_path)))
    error = caught.value
    assert error.what == f"no {name} in {tmp_path}"
    assert all(str(tmp_path / place) in error.why for place in LAYOUTS[name].places)
    assert str(tmp_path) in error.fix
    assert "KDEDGE_DATA=" in error.fix


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist", "stl10", "svhn"])
def test_download_line_is_python_that_names_a_reader(name, tmp_path):
    line = LAYOUTS[name].get.format(root=tmp_path).split('"')[1]
    compile(line, name, "exec")
    exec(line.split(";")[0])  # the import
    assert str(tmp_path) in line


def test_locate_names_the_nearest_set_when_there_is_none_of_that_name():
    with pytest.raises(KdedgeError, match="unknown data set 'cifar11': did you mean 'cifar1"):
        locate(Data(name="cifar11"))


def test_locate_takes_the_only_archive_of_a_folder(tmp_path):
    files(tmp_path, "faces.npz", "notes.txt")
    assert locate(Data(name="arrays", root=str(tmp_path))) == tmp_path / "faces.npz"
    assert locate(Data(name="arrays", root=str(tmp_path / "faces.npz"))) == tmp_path / "faces.npz"


def test_locate_asks_which_when_a_folder_has_two_archives(tmp_path):
    files(tmp_path, "a.npz", "b.npz")
    with pytest.raises(DataError, match=r"has 2 \.npz files: a\.npz, b\.npz"):
        locate(Data(name="arrays", root=str(tmp_path)))


def test_locate_takes_a_root_that_is_a_file_for_a_missing_set(tmp_path):
    with pytest.raises(DataError, match="no svhn in"):
        locate(Data(name="svhn", root=str(files(tmp_path, "note") / "note")))


def test_locate_says_why_a_root_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        locate(Data(name="svhn", root=str(tmp_path / ("x" * 300))))


def test_stamp_of_digits_is_the_version_of_the_package():
    assert stamp(Data(name="digits")) == f"scikit-learn {version('scikit-learn')}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cifar10", ["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch"]),
        ("cifar10", ["cifar10.npz"]),
        ("svhn", ["train_32x32.mat", "test_32x32.mat"]),
        ("imagefolder", ["train/cat/1.png", "test/cat/deep/2.png"]),
        ("imagefolder", ["train/cat/1.png", "val/cat/2.png"]),
    ],
)
def test_stamp_changes_with_every_file_of_the_set(name, content, tmp_path):
    spec = Data(name=name, root=str(files(tmp_path, *content)))
    before = stamp(spec)
    for path in (tmp_path / file for file in content):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert stamp(spec) != before, path
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert stamp(spec) == before
    path.write_bytes(b"longer than it was")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert stamp(spec) != before


def test_stamp_does_not_depend_on_other_files_or_on_the_root(tmp_path):
    spec = Data(name="cifar10", root=str(files(tmp_path / "here", "cifar10.npz")))
    before = stamp(spec)
    files(tmp_path / "here", "cifar100.npz", "runs/log")
    assert stamp(spec) == before
    (tmp_path / "here").rename(tmp_path / "there")
    assert stamp(Data(name="cifar10", root=str(tmp_path / "there"))) == before


def test_stamp_imports_neither_torch_nor_sklearn():
    code = (
        "import sys; from kdedge.core.recipe import Data; from kdedge.data.locate import stamp; "
        "stamp(Data(name='digits')); sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
