"""One line of what a look at a machine finds.

Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

from typing import NamedTuple

OK, NONE, ADVICE, FIX = "ok", "-", "advice", "fix"
"""As it should be; not there and not needed; numbers suffer from it; to be put right before all works."""


class Finding(NamedTuple):
    topic: str
    state: str
    found: str
    why: str = ""
    """Why it matters, where it is not as it should be."""
    fix: str = ""
    """The line that puts it right, to be typed on that machine."""


def gib(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB"
