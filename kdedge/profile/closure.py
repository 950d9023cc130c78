"""The device closure: the modules that a device needs, and the zip of them that is sent there."""

import ast
import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
MARK = "Part of the device closure"
MAIN = "from kdedge.profile.agent import main\n\nmain()\n"
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip can name."""


def closure_files() -> list[Path]:
    """Every module whose docstring says that it is part of the device closure, and the packages that hold them."""
    modules = {path for path in PACKAGE.rglob("*.py") if _is_marked(path.read_text(encoding="utf-8"))}
    packages = {PACKAGE / "__init__.py", *(path.with_name("__init__.py") for path in modules)}
    return sorted(modules | packages)


@cache
def agent_zip() -> bytes:
    """The closure as a program; the same bytes for the same files, so that their hash is the agent's version."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # stored, as zlib's versions compress differently
        for path in closure_files():
            _add(archive, path.relative_to(PACKAGE.parent).as_posix(), path.read_text(encoding="utf-8"))
        _add(archive, "__main__.py", MAIN)
    return buffer.getvalue()


def agent_sha256() -> str:
    return hashlib.sha256(agent_zip()).hexdigest()


def _is_marked(source: str) -> bool:
    return MARK in source and MARK in (ast.get_docstring(ast.parse(source)) or "")


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, LONG_AGO)
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # Unix
    archive.writestr(entry, text)
