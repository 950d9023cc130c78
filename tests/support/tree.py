"""A machine made of files, and programs that only write down how they were called."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest


def plant(root: Path, files: Mapping[str, object]) -> Path:
    """Files by path below `root`; a folder where the content is None, so that reading it fails."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_text(f"{content}\n")
    return root


class Programs:
    """Shell scripts on a PATH of their own; `calls` are their lines, in order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log = folder / "bin", folder / "calls"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", str(self.folder))

    def add(self, name: str, script: str = "") -> Path:
        """The script may use shell builtins only, and $LOG."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nLOG="{self.log}"\necho "{name} $*" >> "$LOG"\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
