"""A device reached over SSH as a target: the files of a request go there, those that it makes come back."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Any, Self

from kdedge.core.errors import KdedgeError, MissingTool
from kdedge.engine.sidecar import sha256_file
from kdedge.profile.address import Address
from kdedge.profile.connection import Connection
from kdedge.profile.files import files_of
from kdedge.profile.jetson import FROM_JETPACK
from kdedge.profile.reply import parse_reply

READS, READ_BY_OPTIONS, WRITES = ("model", "base", "onnx", "arrays"), ("calibration",), ("outputs", "out")
"""The fields of a request, and of its options, that name files.  All that is beside those of WRITES comes back."""
TIMES_NOTHING = ("device", "doctor")
"""Modes that need not have the device for themselves."""
BUILD_SECONDS = 4 * 3600.0
MISSING = " is not installed"


class SshTarget:
    """Connects with the first request; to be used in a with-block.

    Args:
        timeout: seconds for a request; a build has hours.
        wait: seconds to wait for a device that another run measures on.
        command: how SSH is called.
    """

    def __init__(
        self, address: Address, *, timeout: float = 900.0, wait: float = 0.0, command: Sequence[str] = ("ssh",)
    ) -> None:
        self.address, self.timeout, self.wait, self.command = address, timeout, wait, command
        self._connection: Connection | None = None
        self._folders: dict[str, Path] = {}
        self._sent: dict[str, str] = {}
        self._made: dict[str, str] = {}
        """Hashes of the files that were made over there -> their names."""

    def describe(self, backend: str) -> dict[str, Any]:
        return dict(self.run({"mode": "device", "backend": backend})["device"])

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """As `Target.run`; a connection that was lost is made anew by the next one.

        Raises:
            MissingTool: SSH is not installed here, or Python or one of its packages there.
        """
        if self._connection is None:
            self._connection = Connection(self.address, self.command)
        try:
            return self._run(self._connection, request)
        except KdedgeError as error:
            raised = self._seen_from_here(error)
            if self._connection.lost:
                self.close()
            raise raised from None
        except BaseException:  # in the middle of an order: nothing else can be said on this connection
            self.close()
            raise

    def _run(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        there = dict(request, options=dict(request.get("options", {})))
        for fields, name in _named(there, READS, READ_BY_OPTIONS):
            fields[name] = self._push(connection, Path(fields[name]))
        outputs = {}
        for fields, name in _named(there, WRITES):
            path = Path(fields[name])
            folder = self._folder("out", path.parent)
            fields[name], outputs[folder] = f"{folder}/{path.name}", path.parent
        mode = request["mode"]
        limit = allowed(mode, self.timeout)
        order = {"request": there, "out": list(outputs), "alone": mode not in TIMES_NOTHING, "wait": self.wait}
        answer = connection.ask({"do": "run", **order}, self.wait + limit)
        for made in answer["made"]:
            folder, _, name = made.partition("/")
            if ".." in name.split("/") or name.startswith("/"):
                raise KdedgeError(f"file {made} from {self.address.host}", "its name leads out of its folder")
            self._made[connection.get(made, outputs[folder] / name)] = made
        return parse_reply(request, CompletedProcess([], answer["status"], answer["stdout"], answer["stderr"]))

    def _push(self, connection: Connection, path: Path) -> str:
        """Send what the device does not have yet; returns the name that `path` has there."""
        known = (name for name, folder in self._folders.items() if name.startswith("in-") and folder == path.parent)
        folder = next(known, None) or self._folder("in", path.parent)
        for file in sorted(files_of(path)):
            there, sha256 = f"{folder}/{file.relative_to(path.parent).as_posix()}", sha256_file(file)
            if self._sent.get(there) == sha256:
                continue
            if sha256 in self._made:
                connection.copy(there, self._made[sha256])
            else:
                connection.put(there, file, sha256)
            self._sent[there] = sha256
        return f"{folder}/{path.name}"

    def _folder(self, kind: str, here: Path) -> str:
        """A new one over there, for what a folder of this machine has or gets."""
        name = f"{kind}-{len(self._folders)}.kdedge"
        self._folders[name] = here
        return name

    def _seen_from_here(self, error: KdedgeError) -> KdedgeError:
        """With this machine's names of the files, and with lines that are typed here."""
        texts = [error.what, error.why, error.fix]
        for name, folder in self._folders.items():
            texts = [text.replace(f"{name}/", f"{folder}/") for text in texts]
        if isinstance(error, MissingTool) and error.what.endswith(MISSING):
            texts[2] = self._install(error.what[: -len(MISSING)])
        return type(error)(*texts)

    def _install(self, package: str) -> str:
        """The line that gives the device a Python package."""
        if package in FROM_JETPACK:
            return f"{self.address.ssh} -t sudo apt-get install {FROM_JETPACK[package]}   (on a Jetson; never with pip)"
        return f"{self.address.ssh} {self.address.python or 'python3'} -m pip install {package}"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._folders.clear()
        self._sent.clear()
        self._made.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def allowed(mode: str, timeout: float) -> float:
    """Seconds for a request."""
    return max(timeout, BUILD_SECONDS) if mode == "build" else timeout


def _named(
    request: dict[str, Any], fields: tuple[str, ...], options: tuple[str, ...] = ()
) -> Iterator[tuple[dict[str, Any], str]]:
    """Where the request names files: the dictionary and its key."""
    for holder, names in ((request, fields), (request["options"], options)):
        yield from ((holder, name) for name in names if holder.get(name) is not None)
