"""The command line.  Every command imports what it needs when it runs, so that --help stays fast."""

import signal
import sys
from types import FrameType
from typing import NoReturn

from kdedge.cli import bench, chain, data, gate, look  # noqa: F401  (each registers its commands, in the order of --help)
from kdedge.cli.app import app
from kdedge.core.errors import KdedgeError


def interrupted(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    sys.stderr.write("\ninterrupted; what is finished is kept, and the same command goes on from there\n")
    raise SystemExit(130)


def main() -> None:
    """Entry point: a user's mistake ends in one message and an exit code, a bug in its traceback."""
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    try:
        app()
    except KdedgeError as error:
        from kdedge.core.console import fail

        fail(str(error))
        raise SystemExit(error.exit_code) from None
