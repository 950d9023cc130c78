"""What a machine has, what it lacks to build engines and measure them, and the line that brings it.

It looks with the standard library alone, so that numpy can be what is missing.  No host name, user name, serial number
or command line is told.  Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdedge.engine.machine import ROOT
from kdedge.profile import doctor_libraries as libraries
from kdedge.profile import doctor_packages as packages
from kdedge.profile import doctor_state as state
from kdedge.profile.board import fingerprint
from kdedge.profile.doctor_machine import Machine, cpu, cuda, gpu, look, name, system
from kdedge.profile.finding import Finding


def doctor(request: dict[str, Any], root: Path = ROOT) -> dict[str, Any]:
    """The findings, the backends that can build and measure here, and the machine's fingerprint.

    `now` of the request is the host's clock, in seconds since 1970.
    """
    machine, has = look(root), packages.find(root)
    lines = [*_machine(machine, has), *libraries.findings(machine, has), *_state(machine, request.get("now"))]
    versions = {name: has.packages[name].version for name in ("onnxruntime", "tensorrt") if has.packages[name].works}
    return {
        "findings": [_anonymous(line)._asdict() for line in lines],
        "backends": packages.backends(machine, has),
        "machine": fingerprint(versions, root),
    }


def _machine(machine: Machine, has: packages.Libraries) -> Iterator[Finding]:
    if machine.board or machine.jetson:
        yield name(machine)
    yield system(machine)
    yield cpu(machine)
    yield gpu(machine)
    if machine.accelerated:
        yield cuda(machine, needs_compiler=has.packages["pycuda"].absent)


def _state(machine: Machine, now: float | None) -> Iterator[Finding]:
    yield from state.memory(machine)
    yield state.disk()
    yield state.clock(time.time(), now)
    yield from state.speed(machine)
    yield state.load(machine)
    if machine.accelerated:
        yield state.gpu_users(machine)
        yield state.display(machine)


def _anonymous(line: Finding) -> Finding:
    home = str(Path.home())
    return Finding(*(text.replace(home, "~") if len(home) > 1 else text for text in line))
