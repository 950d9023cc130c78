"""A run's folder: what every command reads from and writes to, with nothing ever half written.

manifest.json records each command's key (a hash of its inputs) and its artifacts with their sha256, so that a
command whose inputs are unchanged and whose artifacts are still what it wrote is skipped.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from kdedge.core.errors import KdedgeError

RUNS = Path("runs")
M = TypeVar("M", bound=BaseModel)


class Artifact(BaseModel):
    sha256: str
    bytes: int
    producer: str


class Entry(BaseModel):
    """What one command did last."""

    key: str
    artifacts: list[str]


class Manifest(BaseModel):
    schema_version: int = 1
    recipe: str = ""
    commands: dict[str, Entry] = {}
    artifacts: dict[str, Artifact] = {}


def cache_folder() -> Path:
    """Where trained teachers are kept: KDEDGE_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("KDEDGE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdedge"


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """A hash of plain data: the same for equal values, whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path` that takes its name when the block ends well, and is removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, sort: bool = False) -> None:
    """In the order the value has, or sorted: then the same file for equal values, whatever their order of keys."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    write_text(path, json.dumps(plain, indent=2, sort_keys=sort) + "\n")


def read_record(path: Path, kind: type[M]) -> M:
    """Raises KdedgeError when the file is missing or does not hold one."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error).partition("\n")[0]
        raise KdedgeError(f"{path} cannot be read", reason, "kdedge run RECIPE   (writes it again)") from None


def check_disk(folder: Path, need: int) -> None:
    """Raises KdedgeError when the disk of `folder` has fewer than `need` bytes left."""
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    if free < need:
        raise KdedgeError(
            f"{folder} has {free / 2**20:.0f} MiB of free disk",
            f"the run may write up to {need / 2**20:.0f} MiB",
            "kdedge clean   (says what it would remove), or run in a folder on another disk",
        )


class RunDir:
    """The folder of one run, made on first use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def manifest(self) -> Manifest:
        path = self / "manifest.json"
        if not path.exists():
            return Manifest()
        try:
            return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise KdedgeError(
                f"{path} is not a manifest", str(error).splitlines()[0], f"rm {path}   (then every command runs again)"
            ) from None

    def fresh(self, command: str, key: str) -> bool:
        """True when `command` last ran with this key and all it wrote is still there, byte for byte."""
        manifest = self.manifest
        entry = manifest.commands.get(command)
        return entry is not None and entry.key == key and all(self._intact(name, manifest) for name in entry.artifacts)

    def _intact(self, name: str, manifest: Manifest) -> bool:
        path, known = self / name, manifest.artifacts.get(name)
        return (
            known is not None
            and path.is_file()
            and path.stat().st_size == known.bytes
            and sha256_file(path) == known.sha256
        )

    def record(self, command: str, key: str, artifacts: list[str]) -> None:
        """Note what `command` wrote; names are relative to the run's folder.  Call it last."""
        manifest = self.manifest
        manifest.commands[command] = Entry(key=key, artifacts=sorted(artifacts))
        manifest.artifacts = {name: known for name, known in manifest.artifacts.items() if known.producer != command}
        for name in artifacts:
            path = self / name
            manifest.artifacts[name] = Artifact(sha256=sha256_file(path), bytes=path.stat().st_size, producer=command)
        write_json(self / "manifest.json", manifest)

    def sha256(self, name: str) -> str:
        """The recorded hash of an artifact.

        Raises:
            KdedgeError: no command of this run has written it.
        """
        known = self.manifest.artifacts.get(name)
        if known is None:
            raise KdedgeError(
                f"{self.path} has no {name}",
                "the command that writes it has not run",
                f"kdedge run {self.manifest.recipe or 'RECIPE'}",
            )
        return known.sha256

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the lock falls when the process ends, however it ends."""
        import fcntl

        self.path.mkdir(parents=True, exist_ok=True)
        with (self / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise KdedgeError(
                    f"{self.path} is in use",
                    f"process {file.read().strip() or 'unknown'} works in it",
                    "wait for it, or stop it",
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            self.sweep()
            yield

    def sweep(self) -> None:
        """Remove what a killed process left half written; only such files have names that start with a dot."""
        for path in list(self.path.rglob(".*")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def newest_run(runs: Path = RUNS) -> RunDir:
    """The run that a command means when none is named."""
    found = sorted(runs.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise KdedgeError(
            f"no run in {runs.absolute()}", "nothing has been trained from this folder", "kdedge run quickstart"
        )
    return RunDir(found[-1].parent)
