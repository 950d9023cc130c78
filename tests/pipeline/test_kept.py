"""Runs kept under a commit, and found again by a revision: real git, in a repository of each test's own."""

import os
import subprocess
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from mini import Finished
from turns import Timed

from kdedge.core.errors import KdedgeError, MissingTool
from kdedge.pipeline import clean, kept
from kdedge.pipeline.against import gate_against
from kdedge.pipeline.kept import commit_of, keep, newest
from kdedge.pipeline.project import reopen

PERSON = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *PERSON, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(copied: Finished, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A working tree with one commit, a run, and an empty cache."""
    monkeypatch.chdir(copied.folder)
    monkeypatch.setenv("KDEDGE_CACHE", str(copied.folder / "cache"))
    git("init", "--quiet")
    git("add", "mini.yaml")
    git("commit", "--quiet", "-m", "first")
    return copied


def commit(text: str) -> str:
    git("commit", "--quiet", "--allow-empty", "-m", text)
    return git("rev-parse", "HEAD")


def against(finished: Finished, revision: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Exit code, and the result."""
    code = gate_against(reopen(finished.run), revision, Timed(), **options)
    return code, finished.json("against.json")["result"]


def test_run_is_held_against_the_one_that_was_kept(repository: Finished) -> None:
    """What was kept is as it was then: the run's own file has shrunk since by a tenth."""
    keep(reopen(repository.run))
    first = git("rev-parse", "HEAD")
    commit("second")
    path = repository.run / "export/student.int8.onnx"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size / 1.1)])
    code, result = against(repository, "HEAD~1")
    checks = {check["metric"]: check for check in result["checks"]}
    assert (code, result["verdict"], result["against"]) == (0, "pass", f"HEAD~1 ({first[:10]})")
    assert checks["int8/onnx_bytes"]["reason"] == "-9.1 %"
    assert {f"{precision}/top1" for precision in ("fp32", "fp16", "int8")} < set(checks)
    assert checks["fp32/top1"]["reason"].startswith("+0.00 points: 0 images lost, 0 won")


@pytest.mark.parametrize("revision", ["main", "v1", "HEAD", "@{0}", "whole", "short"])
def test_revision_may_have_any_name_that_git_knows(repository: Finished, revision: str) -> None:
    git("tag", "-a", "v1", "-m", "one")
    whole = git("rev-parse", "HEAD")
    assert commit_of({"whole": whole, "short": whole[:7]}.get(revision, revision)) == whole


def test_whole_name_of_a_commit_needs_no_history(repository: Finished) -> None:
    """As in the shallow clone of a pull request."""
    keep(reopen(repository.run))
    (name,) = newest("mini")
    gone = "0123456789" * 4
    name.rename(name.with_name(f"{gone}.zip"))
    code, result = against(repository, gone)
    assert (code, result["against"]) == (0, gone[:10])


def test_path_wins_over_a_revision_of_its_name(repository: Finished) -> None:
    keep(reopen(repository.run))
    Path("main").mkdir()
    with pytest.raises(KdedgeError, match="it holds 0 ONNX files"):
        against(repository, "main")
    assert against(repository, "refs/heads/main")[0] == 0


@pytest.mark.parametrize("advisory", [False, True])
def test_commit_without_a_run_is_incomparable_and_says_which_have_one(repository: Finished, advisory: bool) -> None:
    keep(reopen(repository.run))
    has = git("rev-parse", "HEAD")
    lacks = commit("second")
    code, result = against(repository, "main", advisory=advisory)
    assert (code, result["verdict"], result["against"]) == (0 if advisory else 3, "incomparable", "main")
    (said,) = result["warnings"]
    assert said.startswith(f"no run of mini is kept for commit {lacks[:10]}: kept are {has[:10]} (")
    assert f"git worktree add ../at-{lacks[:10]} {lacks[:10]}" in said
    assert "### kdedge gate undecided: cannot be held against main\n" in (repository.run / "against.md").read_text()
    assert 'skipped="1"' in (repository.run / "against.xml").read_text()


def test_with_nothing_kept_it_says_so(repository: Finished) -> None:
    assert "none of any commit is kept here" in against(repository, "HEAD")[1]["warnings"][0]


@pytest.mark.parametrize(
    "name", ["nowhere", "--help", "-q", "--all", "HEAD; touch hacked", "$(touch hacked)", ":/", "a\nb"]
)
def test_odd_names_are_names(repository: Finished, name: str) -> None:
    with pytest.raises(KdedgeError) as caught:
        against(repository, name)
    assert caught.value.what == f"--against {name}"
    assert caught.value.why.startswith("neither a run's folder, an ONNX file, nor a revision: ")
    assert not Path("hacked").exists()


def test_kept_file_has_no_engine_no_image_and_no_folder_of_this_machine(repository: Finished) -> None:
    keep(reopen(repository.run))
    (path,) = newest("mini")
    with ZipFile(path) as archive:
        names = set(archive.namelist())
        texts = b"".join(archive.read(name) for name in names if name.endswith(".json"))
        with archive.open("arrays/eval.npz") as file:
            assert set(np.load(file).files) == {"labels", "ids"}
    hops = {f"predictions/{kind}-{name}.npz" for kind in ("onnx", "engine") for name in ("fp32", "fp16", "int8")}
    onnx = {f"export/student.{name}.onnx" for name in ("fp32", "fp16", "int8")}
    assert names == {"recipe.json", "training.json", "export.json", "arrays/eval.npz", *hops, *onnx}
    assert str(repository.folder).encode() not in texts


def test_changed_tree_keeps_nothing(repository: Finished) -> None:
    repository.recipe.write_text("# changed\n")
    with pytest.raises(KdedgeError, match=r"not as any commit has it: mini\.yaml"):
        keep(reopen(repository.run))
    assert newest("mini") == []


def test_folder_outside_a_repository_keeps_nothing(repository: Finished, tmp_path_factory, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("bare"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path.cwd().parent))
    with pytest.raises(KdedgeError, match="not a git repository"):
        keep(reopen(repository.run))


def test_machine_without_git_says_so(repository: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository.folder))
    with pytest.raises(MissingTool, match="git is not installed"):
        keep(reopen(repository.run))
    assert commit_of("0123456789" * 4) == "0123456789" * 4
    with pytest.raises(MissingTool, match="--against main"):
        commit_of("main")


def test_keeping_again_replaces_and_interrupted_leaves_what_there_was(repository: Finished, monkeypatch) -> None:
    keep(reopen(repository.run))
    (path,) = newest("mini")
    (repository.run / "predictions/onnx-int8.npz").unlink()
    genuine = kept.write_zip

    def interrupted(project, temporary):
        genuine(project, temporary)
        raise KeyboardInterrupt

    monkeypatch.setattr(kept, "write_zip", interrupted)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        keep(reopen(repository.run))
    assert (list(path.parent.iterdir()), path.read_bytes()) == ([path], before)
    monkeypatch.setattr(kept, "write_zip", genuine)
    keep(reopen(repository.run))
    assert len(path.read_bytes()) < len(before)


def test_oldest_go_beyond_the_limit(repository: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 2)
    commits = []
    for number in range(3):
        commits.append(commit(str(number)))
        keep(reopen(repository.run))
        (path,) = (path for path in newest("mini") if path.stem == commits[-1])
        os.utime(path, (number, number))
    assert [path.stem for path in newest("mini")] == commits[:0:-1]


def test_damaged_file_is_named(repository: Finished) -> None:
    keep(reopen(repository.run))
    (path,) = newest("mini")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(KdedgeError) as caught:
        against(repository, "HEAD")
    assert caught.value.what == f"{path} cannot be read"
    assert caught.value.fix.startswith(f"rm {path}")


def test_clean_takes_what_is_kept(repository: Finished) -> None:
    keep(reopen(repository.run))
    clean.run(remove=False)
    assert newest("mini")
    clean.run(remove=True)
    assert newest("mini") == []


def test_command_keeps_and_finds(repository: Finished, forkserver) -> None:
    run = str(repository.run)
    code, process = forkserver.run(["gate", run, "--keep", "--json"], repository.folder)
    assert code == 0, process.stderr
    assert f'"commit": "{git("rev-parse", "HEAD")}"' in process.stdout
    code, process = forkserver.run(["gate", run, "--against", "HEAD~7"], repository.folder)
    assert code == 2
    assert "git log --oneline --all" in process.stdout + process.stderr
