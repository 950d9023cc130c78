"""Runs that were kept under the commit they were made at, so that a later gate can name a revision of git.

Each is one zip file in the cache, kept/RECIPE/COMMIT.zip: a run's folder with only what `--against` reads.
"""

import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np

from kdedge.core import console
from kdedge.core.deployment import Precision
from kdedge.core.errors import Incomparable, KdedgeError, MissingTool
from kdedge.core.report import ExportReport
from kdedge.core.rundir import atomic_path, cache_folder, read_record
from kdedge.export.arrays import read_labels
from kdedge.pipeline.device import EVAL
from kdedge.pipeline.project import EXPORT, RECIPE, TRAINING, Project, SavedRecipe

MOST = 50
"""Of one recipe; beyond that the oldest go."""
WHOLE = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""The name of a commit, which a clone without history may not have."""
NAMED = 5
"""Commits in a message."""
SHORT = 10


def keep(project: Project) -> None:
    """Keep a run under the commit of the working tree here, instead of one kept there before.

    Raises:
        KdedgeError: no repository here, or files in it that differ from their commit.
    """
    if changed := git("status", "--porcelain", "--untracked-files=no").splitlines():
        names = ", ".join(line[3:] for line in changed[:NAMED])
        raise KdedgeError("--keep", f"not as any commit has it: {names}", "git commit, then kdedge gate RUN --keep")
    commit = git("rev-parse", "--verify", "HEAD^{commit}")
    path = place(project.recipe.name, commit)
    with project.run.locked(), atomic_path(path) as temporary:
        write_zip(project, temporary)
    for old in newest(project.recipe.name)[MOST:]:
        old.unlink(missing_ok=True)
    size = path.stat().st_size
    console.say(f"{project.run.path} is kept as {commit[:SHORT]}, {console.size(size)}")
    console.emit({"run": project.run.path.name, "recipe": project.recipe.name, "commit": commit, "bytes": size})


def write_zip(project: Project, path: Path) -> None:
    run = project.run
    export = read_record(run / EXPORT, ExportReport)
    hops = [f"predictions/{kind}-{name}.npz" for kind in ("onnx", "engine") for name in get_args(Precision)]
    onnx = [export.onnx[name].path for name in get_args(Precision) if name in export.onnx]
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name in (TRAINING, EXPORT, *onnx, *(hop for hop in hops if (run / hop).is_file())):
            archive.write(run / name, name)
        archive.writestr(RECIPE, SavedRecipe(recipe=project.recipe, folder=".").model_dump_json(indent=2))
        if (run / EVAL).is_file():
            archive.writestr(EVAL, labels_only(run / EVAL))


def labels_only(path: Path) -> bytes:
    """The test set without its images, which no comparison reads."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **read_labels(path)._asdict())
    return buffer.getvalue()


@contextmanager
def kept_run(revision: str, recipe: str) -> Iterator[tuple[str, Path]]:
    """The commit that a revision names, and a folder for the block with the run that was kept under it.

    Raises:
        KdedgeError: no such revision, or a damaged file.
        Incomparable: no run of the recipe was kept there.
    """
    commit = commit_of(revision)
    path = place(recipe, commit)
    if not path.is_file():
        raise missing(commit[:SHORT], recipe)
    with TemporaryDirectory(prefix="kdedge-") as folder:
        try:
            with ZipFile(path) as archive:
                archive.extractall(folder)
        except (BadZipFile, EOFError) as error:
            raise KdedgeError(f"{path} cannot be read", str(error), f"rm {path}, and keep that run again") from None
        yield commit, Path(folder)


def commit_of(revision: str) -> str:
    """Raises KdedgeError where git knows no such revision here."""
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except KdedgeError as error:
        if WHOLE.fullmatch(revision):
            return revision
        why = f"neither a run's folder, an ONNX file, nor a revision: {error.why}"
        fix = error.fix if isinstance(error, MissingTool) else "git log --oneline --all   (revisions that there are)"
        raise type(error)(f"--against {revision}", why, fix) from None


def missing(commit: str, recipe: str) -> Incomparable:
    """With the commits that there are, and the lines that make one of this."""
    found = newest(recipe)
    days = [f"{path.stem[:SHORT]} ({datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y-%m-%d})" for path in found]
    more = f" and {len(days) - NAMED} more" if len(days) > NAMED else ""
    there = f"kept are {', '.join(days[:NAMED])}{more}" if days else "none of any commit is kept here"
    fix = f"git worktree add ../at-{commit} {commit} && cd ../at-{commit} && kdedge run RECIPE && kdedge gate --keep"
    return Incomparable(f"no run of {recipe} is kept for commit {commit}", there, fix)


def newest(recipe: str) -> list[Path]:
    """What is kept of a recipe, the newest first."""
    return sorted((kept_folder() / recipe).glob("*.zip"), key=lambda path: path.stat().st_mtime, reverse=True)


def place(recipe: str, commit: str) -> Path:
    return kept_folder() / recipe / f"{commit}.zip"


def kept_folder() -> Path:
    return cache_folder() / "kept"


def shown(revision: str, commit: str) -> str:
    """A revision as a person knows it, and what it stood for."""
    return commit[:SHORT] if commit.startswith(revision) else f"{revision} ({commit[:SHORT]})"


def git(*arguments: str) -> str:
    """What git says in the current folder.

    Raises:
        MissingTool: it is not installed.
        KdedgeError: it fails; `why` is what it says.
    """
    program = shutil.which("git")
    if program is None:
        raise MissingTool("git is not installed", "commits are known by it", "apt-get install git")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stderr.strip().removeprefix("fatal: ").partition("\n")[0]
        raise KdedgeError(f"git {arguments[0]}", why, "cd to the repository that the recipe is in")
    return done.stdout.rstrip("\n")
