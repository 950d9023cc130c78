"""Where a device is: ssh://[user@]host[:port][?python=PATH]"""

import re
from typing import NamedTuple

from kdedge.core.errors import KdedgeError

SCHEME = "ssh://"
FORM = "ssh://[user@]host[:port][?python=PATH]"
# Nothing that a shell, or ssh's own options, would take for something else.
ADDRESS = re.compile(
    r"""ssh://
    (?:(?P<user>\w[\w.+-]*)@)?
    (?P<host>\w[\w.-]*|\[[\da-fA-F:.]+(?:%\w+)?\])
    (?::(?P<port>\d{1,5}))?/?
    (?:\?python=(?P<python>[\w~./][\w./+-]*))?""",
    re.ASCII | re.VERBOSE,
)


class Address(NamedTuple):
    user: str | None
    host: str
    """A name, an IP address, or an alias of the user's SSH configuration."""
    port: str | None
    python: str | None
    """The device's Python to use, such as that of a virtual environment."""

    @property
    def arguments(self) -> list[str]:
        """What follows ssh and its options."""
        destination = f"{self.user}@{self.host}" if self.user else self.host
        return [*(["-p", self.port] if self.port else []), destination]

    @property
    def ssh(self) -> str:
        """The beginning of a line to type."""
        return " ".join(["ssh", *self.arguments])


def parse_address(text: str) -> Address:
    """Raises KdedgeError for what is no such address."""
    found = ADDRESS.fullmatch(text)
    if not found:
        raise KdedgeError(f"--target {text}", f"expected {FORM}", "--target ssh://user@host")
    return Address(found["user"], found["host"].strip("[]"), found["port"], found["python"])
