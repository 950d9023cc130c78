"""Whether something slowed the machine down while it was measured: its state before, during and after is compared.

No counter tells of all of it, so each kind of evidence has its own words.
Part of the device closure: Python 3.8, standard library only.  `root` stands for `/`, so that tests bring their own.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kdedge.engine.machine import ROOT
from kdedge.profile import sysfs
from kdedge.profile.telemetry import Sampler

PERIOD = 1.0
"""Seconds between two states."""
EVENTS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
LIMITS = {"crit": "critical", "max": "maximum"}
BUSY = 90.0
"""Percent of load from which a GPU should run at its highest clock."""
SLOW = 0.95
"""Share of the highest clock below which a busy GPU is held back."""
NEAR = 3.0
"""Degrees below the passive trip."""
REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's clock event reasons that mean slower than asked; the others are idle and what the user set."""


class Evidence(NamedTuple):
    kind: str
    """over-current, alarm, cooling, clock, temperature or driver."""
    text: str


@dataclass(frozen=True)
class State:
    """Of one moment."""

    events: dict[str, int] = field(default_factory=dict)
    alarms: dict[str, int] = field(default_factory=dict)
    coolers: dict[str, sysfs.Cooler] = field(default_factory=dict)
    zones: dict[str, sysfs.Zone] = field(default_factory=dict)
    clocks: dict[str, sysfs.Clock] = field(default_factory=dict)
    loads: dict[str, float] = field(default_factory=dict)
    reasons: int = 0
    """NVML's, for a discrete GPU."""


def state(root: Path = ROOT, gpu: Any = None) -> State:
    """This machine's; `gpu` is an open `telemetry.NvmlPower`."""
    return State(
        events=sysfs.over_current_events(root),
        alarms=sysfs.alarms(root),
        coolers=sysfs.coolers(root),
        zones=sysfs.zones(root),
        clocks={name: clock for name, clock in sysfs.device_clocks(root).items() if sysfs.GPU.fullmatch(name)},
        loads=sysfs.gpu_loads(root),
        reasons=gpu.clock_reasons() if gpu else 0,
    )


@contextmanager
def watched(root: Path = ROOT, gpu: Any = None, period: float = PERIOD) -> Iterator[list[Evidence]]:
    """Watch the machine while a block runs; the list is filled when that ends well."""
    found: list[Evidence] = []
    first = state(root, gpu)
    with Sampler(lambda: state(root, gpu), period) as sampler:
        yield found
    found += evidence([first, *sampler.values, state(root, gpu)])


def evidence(states: Sequence[State]) -> list[Evidence]:
    """What the states say, the first taken before the run and the last after it."""
    if len(states) < 2:
        return []
    return [
        *_over_current(states[0], states[-1]),
        *_alarms(states),
        *_cooling(states),
        *_clocks(states),
        *_temperatures(states),
        *_driver(states),
    ]


def _over_current(first: State, last: State) -> Iterator[Evidence]:
    """The counters run since the start of the board: only what was added counts."""
    for name, count in last.events.items():
        added = count - first.events.get(name, count)
        if added > 0:
            what = EVENTS.get(name, "over-current")
            yield Evidence("over-current", f"throttled by {what} ({name}): {added} events during the run")
        elif added < 0:
            yield Evidence("over-current", f"the counter {name} went back: the board was started anew during the run")


def _alarms(states: Sequence[State]) -> Iterator[Evidence]:
    for name in states[-1].alarms:
        if not states[0].alarms.get(name) and any(state.alarms.get(name) for state in states):
            rail, _, limit = name.rpartition(" ")
            yield Evidence("alarm", f"rail {rail} went over its {LIMITS[limit]} current")


def _cooling(states: Sequence[State]) -> Iterator[Evidence]:
    for name, before in states[0].coolers.items():
        most = max(state.coolers.get(name, before).state for state in states)
        if most > before.state:
            text = f"slowed down for heat: {before.kind} ({name}) went from state {before.state} to {most}"
            yield Evidence("cooling", text)


def _clocks(states: Sequence[State]) -> Iterator[Evidence]:
    """The median under load is what counts: a clock that follows the load lags behind at first."""
    for name, before in states[0].clocks.items():
        busy = [state.clocks[name] for state in states if state.loads.get(name, 0) >= BUSY and name in state.clocks]
        clocks = [clock.now for clock in busy if clock.now is not None]
        if before.highest and clocks and statistics.median(clocks) < SLOW * before.highest:
            text = f"{name} ran at {statistics.median(clocks):.0f} MHz under load, not at {before.highest:.0f} MHz"
            yield Evidence("clock", text)


def _temperatures(states: Sequence[State]) -> Iterator[Evidence]:
    for name, zone in states[0].zones.items():
        known = [state.zones[name].celsius for state in states if name in state.zones]
        hottest = max((celsius for celsius in known if celsius is not None), default=None)
        if zone.passive is not None and hottest is not None and hottest > zone.passive - NEAR:
            text = f"{name} reached {hottest:.1f} C, and is slowed down from {zone.passive:.1f} C on"
            yield Evidence("temperature", text)


def _driver(states: Sequence[State]) -> Iterator[Evidence]:
    for bit, what in REASONS.items():
        times = sum(bool(state.reasons & bit) for state in states)
        if times:
            yield Evidence("driver", f"the GPU's driver reports {what} in {times} of {len(states)} samples")
