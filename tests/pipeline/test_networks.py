"""Where a teacher comes from."""

from pathlib import Path

import pytest
import torch
from mini import write_recipe

from kdedge.core.errors import ModelError
from kdedge.core.load import load_recipe
from kdedge.core.recipe import Model
from kdedge.core.rundir import cache_folder
from kdedge.data.build import build_data
from kdedge.data.sets import Dataset
from kdedge.pipeline.networks import build, describe, obtain_teacher
from kdedge.pipeline.project import Project, open_project

TINY = ("data.train_limit=100", "teachers.0.training.epochs=2")


def project(folder: Path, *changes: str) -> tuple[Project, Dataset]:
    one = open_project(load_recipe(str(write_recipe(folder)), (*TINY, *changes)), folder / "runs")
    return one, build_data(one.recipe.data, one.recipe.seed)


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "lock"}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_network_is_decided_by_its_seed_alone(tmp_path: Path) -> None:
    _, dataset = project(tmp_path)
    torch.manual_seed(99)
    one, same, other = (build(Model(name="resnet8"), dataset, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_teacher_is_trained_once_for_all_projects(tmp_path: Path, own_cache: Path) -> None:
    one, dataset = project(tmp_path)
    first = obtain_teacher(one, one.recipe.teachers[0], dataset)
    assert (first.source, first.epochs) == ("trained", 2)
    assert first.folder is not None
    assert first.folder.parent == cache_folder() / "teachers"
    before = files(own_cache)

    other, dataset = project(tmp_path, "student.name=resnet14", "phases.0.epochs=1")
    second = obtain_teacher(other, other.recipe.teachers[0], dataset)
    assert (second.source, second.epochs, second.folder) == ("trained (cached)", 2, first.folder)
    assert second.seconds == first.seconds > 0
    weights = second.network.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in first.network.state_dict().items())
    assert files(own_cache) == before


@pytest.mark.parametrize(
    "change",
    ["seed=1", "teachers.0.training.epochs=1", "data.train_limit=90", "teachers.0.name=resnet14", "run.devices=2"],
)
def test_another_teacher_gets_a_place_of_its_own(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    trained = []
    monkeypatch.setattr("kdedge.pipeline.networks.train", lambda job: trained.append(job.folder))
    for changes in ((), (change,)):
        one, dataset = project(tmp_path, *changes)
        with pytest.raises(FileNotFoundError):  # nothing was trained, so there is nothing to record
            obtain_teacher(one, one.recipe.teachers[0], dataset)
    assert len(set(trained)) == 2


def test_teacher_in_the_cache_that_was_altered_is_made_whole_again(tmp_path: Path, own_cache: Path) -> None:
    one, dataset = project(tmp_path)
    first = obtain_teacher(one, one.recipe.teachers[0], dataset)
    assert first.folder is not None
    weights = first.folder / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\x00\x00\x80\x7f")
    assert obtain_teacher(one, one.recipe.teachers[0], dataset).source == "trained"
    assert weights.read_bytes() == content


CHAIN = (
    "teachers=[{name: resnet8, training: {epochs: 1, methods: [{name: logits}]},"
    " teachers: [{name: resnet14, training: {epochs: 1}}]}]"
)


def test_teacher_assistant_learns_from_its_own_teacher_once(tmp_path: Path, own_cache: Path) -> None:
    one, dataset = project(tmp_path, CHAIN)
    first = obtain_teacher(one, one.recipe.teachers[0], dataset)
    assert first.source == "trained by resnet14"
    names = sorted(path.name.partition("-")[0] for path in (own_cache / "teachers").iterdir())
    assert names == ["resnet14", "resnet8"]
    assert first.folder is not None
    assert "logits/kd" in (first.folder / "log.csv").read_text().partition("\n")[0]
    again = obtain_teacher(one, one.recipe.teachers[0], dataset)
    assert again.source == "trained by resnet14 (cached)"


def test_teacher_assistant_of_another_teacher_is_another_one(tmp_path: Path) -> None:
    one, _ = project(tmp_path, CHAIN)
    other, _ = project(tmp_path, CHAIN.replace("resnet14", "resnet20"))
    assert one.student_key() != other.student_key()


CHECKPOINT = "teachers=[{name: resnet8, checkpoint: t.pt}]"


def test_checkpoint_is_named_with_its_hash(tmp_path: Path) -> None:
    one, dataset = project(tmp_path, "teachers.0.training.epochs=1")
    network = build(Model(name="resnet8"), dataset, 5)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "t.pt")
    one, dataset = checkpoint_project(tmp_path)
    found = obtain_teacher(one, one.recipe.teachers[0], dataset)
    assert found.source.startswith("t.pt sha256:")
    assert torch.equal(found.network.state_dict()["linear.weight"], network.state_dict()["linear.weight"])


def checkpoint_project(folder: Path) -> tuple[Project, Dataset]:
    changes = ("data.train_limit=100", CHECKPOINT)
    one = open_project(load_recipe(str(write_recipe(folder)), changes), folder / "runs")
    return one, build_data(one.recipe.data, one.recipe.seed)


def test_checkpoint_with_missing_keys_is_refused_with_their_list(tmp_path: Path) -> None:
    one, dataset = checkpoint_project(tmp_path)
    state = build(Model(name="resnet8"), dataset, 0).state_dict()
    torch.save({key: value for key, value in state.items() if not key.startswith("linear")}, tmp_path / "t.pt")
    with pytest.raises(ModelError, match=r"missing: linear\.weight, linear\.bias"):
        obtain_teacher(one, one.recipe.teachers[0], dataset)


def test_checkpoint_that_is_missing_never_becomes_a_training(tmp_path: Path) -> None:
    one, dataset = checkpoint_project(tmp_path)
    with pytest.raises(ModelError, match="is missing"):
        obtain_teacher(one, one.recipe.teachers[0], dataset)


def test_description_has_the_cost_of_one_image(tmp_path: Path) -> None:
    """A resnet8 of 16, 32 and 64 channels on 8x8 gray digits, counted by hand."""
    _, dataset = project(tmp_path)
    model = Model(name="resnet8")
    about = describe(model, build(model, dataset, 0), dataset, top1=0.5)
    assert about.input_shape == [1, 8, 8]
    convolutions = [(1, 16, 8), (16, 16, 8), (16, 16, 8), (16, 32, 4), (32, 32, 4), (32, 64, 2), (64, 64, 2)]
    macs = sum(9 * inside * outside * side**2 for inside, outside, side in convolutions) + 64 * 10
    assert about.macs - macs in (0, 16 * 32 * 16 + 32 * 64 * 4)  # shortcuts by zero padding, or by 1x1 convolutions
