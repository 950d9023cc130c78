"""Lines of tegrastats, taken apart by the shape of each field and never by its place: boards differ in both.

    11-15-2024 08:38:09 RAM 6185/7620MB (lfb 8x2MB) CPU [15%@729,off] GR3D_FREQ 63%@[621,0] NVENC off VIC 115
    MTS fg 1% bg 8% cpu@53.968C VDD_IN 12479mW/11020mW

A name may stand for a rail and for a sensor at once (AGX Xavier's GPU), and may occur twice: so fields are lists.
Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kdedge.core.errors import KdedgeError

BOARD_INPUTS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that the whole module is fed from; AGX Xavier and AGX Orin have none."""
NOT_CONNECTED = "NC"
SENSOR_OFF = -256.0
INTEGER, SIGNED, DECIMAL, NAME = r"\d{1,9}", r"-?\d{1,9}", r"-?\d{1,6}(?:\.\d{1,6})?", r"[A-Za-z][\w.-]*"
CORE = rf"(?:{INTEGER}%(?:@{INTEGER})?|off)"
# A number alone has no unit, so that only the name can tell that it is a clock.
ENGINE = r"(?:APE|VIC|NV\w+|MSENC|OFA|PVA|SE|ISP|VI)\d*(?:_FREQ)?"


class Memory(NamedTuple):
    name: str
    used: int
    total: int
    unit: str
    """Of `used` and `total`: kB or MB."""
    detail: str
    """What is in brackets behind it, such as "lfb 8x2MB" (the largest free blocks) or "cached 1MB"."""


class Core(NamedTuple):
    percent: int
    mhz: int | None


class Load(NamedTuple):
    """A unit that tells how busy it is, such as the memory controller (EMC_FREQ) or the GPU (GR3D_FREQ)."""

    name: str
    percent: int | None
    mhz: tuple[int | None, ...]
    """One for each GPC of a GPU, None for those without power; empty where not printed."""


class Engine(NamedTuple):
    name: str
    mhz: int | None
    """None: off"""


class Temperature(NamedTuple):
    name: str
    celsius: float | None
    """None: the sensor is off"""
    peak: float | None


class Rail(NamedTuple):
    name: str
    milliwatts: int
    average: int
    """Since tegrastats was started."""
    peak: int | None


class Total(NamedTuple):
    milliwatts: float
    rails: tuple[str, ...]
    """One name: the rail that feeds the board.  Several: they were added up, for there is no such rail."""


@dataclass
class Reading:
    """One line.  What no shape fits is in `unknown`, word by word."""

    time: str = ""
    memory: list[Memory] = field(default_factory=list)
    cores: list[Core | None] = field(default_factory=list)
    """None: off"""
    loads: list[Load] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    temperatures: list[Temperature] = field(default_factory=list)
    rails: list[Rail] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def known(self) -> bool:
        return any([self.memory, self.cores, self.loads, self.engines, self.temperatures, self.rails])


def _time(reading: Reading, found: re.Match[str]) -> None:
    reading.time = found[0]


def _memory(reading: Reading, found: re.Match[str]) -> None:
    name, used, total, unit, detail = found.groups()
    reading.memory.append(Memory(name, int(used), int(total), unit, detail or ""))


def _cores(reading: Reading, found: re.Match[str]) -> None:
    """A clock behind the bracket is that of all cores."""
    for text in found[1].split(","):
        percent, _, mhz = text.partition("%")
        clock = _number(mhz[1:] or found[2])
        reading.cores.append(None if text == "off" else Core(int(percent), clock))


def _fan_out(reading: Reading, found: re.Match[str]) -> None:
    """`MTS fg 1% bg 8%`: two loads of one unit."""
    reading.loads += [Load(f"{found[1]} fg", int(found[2]), ()), Load(f"{found[1]} bg", int(found[3]), ())]


def _load(reading: Reading, found: re.Match[str]) -> None:
    name, percent, clocks = found.groups()
    mhz = tuple(int(text) or None for text in clocks.strip("[]").split(",")) if clocks else ()
    reading.loads.append(Load(name, _number(percent), mhz))


def _temperature(reading: Reading, found: re.Match[str]) -> None:
    name, now, peak = found.groups()
    reading.temperatures.append(Temperature(name, _celsius(now), _celsius(peak)))


def _rail(reading: Reading, found: re.Match[str]) -> None:
    name, now, _, average, peak = found.groups()
    reading.rails.append(Rail(name, int(now), int(average), _number(peak)))


def _engine(reading: Reading, found: re.Match[str]) -> None:
    reading.engines.append(Engine(found[1], _number(found[2])))


def _unknown(reading: Reading, found: re.Match[str]) -> None:
    reading.unknown.append(found[0])


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _celsius(text: str | None) -> float | None:
    return None if text is None or float(text) == SENSOR_OFF else float(text)


# In the order in which they are tried; each must end where a word ends.
SHAPES = [
    (re.compile(pattern + r"(?!\S)", re.ASCII), take)
    for pattern, take in [
        (r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d", _time),
        (rf"({NAME}) ({INTEGER})/({INTEGER})([kM]B)(?: ?\(([a-z]+ [0-9x]+[kM]B)\))?", _memory),
        (rf"(?:CPU|cpu) \[({CORE}(?:,{CORE})*)\](?:@({INTEGER}))?", _cores),
        (rf"(MTS) fg ({INTEGER})% bg ({INTEGER})%", _fan_out),
        (rf"({NAME}) (?:({INTEGER})%)?(?:(?<=%)|@({INTEGER}|\[{INTEGER}(?:,{INTEGER})*\]))", _load),
        (rf"({NAME})@({DECIMAL})C(?:/({DECIMAL})C)?", _temperature),
        (rf"(?!\w*RAM |SWAP )({NAME}) ({SIGNED})(mW|)/({SIGNED})\3(?:/({SIGNED})\3)?", _rail),
        (rf"({ENGINE}) ({INTEGER})", _engine),
        (rf"({NAME}) off()", _engine),
        (r"\S+", _unknown),
    ]
]


def parse_line(line: str) -> Reading:
    """What one line says; any text at all is a line, and what is not understood is kept as unknown."""
    reading, position = Reading(), 0
    text = " ".join(line.split())
    while position < len(text):
        for shape, take in SHAPES:
            found = shape.match(text, position)
            if found:
                take(reading, found)
                position = found.end() + 1
                break
    return reading


def parse_log(text: str) -> list[Reading]:
    """The lines that tegrastats wrote, others left out.

    Raises:
        KdedgeError: no line is one of tegrastats'.
    """
    readings = [reading for reading in map(parse_line, text.splitlines()) if reading.known]
    if not readings:
        raise KdedgeError("output of tegrastats", "no line of it has a field that tegrastats writes")
    return readings


def total_power(rails: Iterable[tuple[str, float]]) -> Total | None:
    """Of the board, from (rail, mW): the rail that feeds it or, on boards without one, the sum; None without rails."""
    connected = [(name, milliwatts) for name, milliwatts in rails if name != NOT_CONNECTED]
    for feed in BOARD_INPUTS:
        for name, milliwatts in connected:
            if name == feed:
                return Total(milliwatts, (name,))
    if not connected:
        return None
    return Total(sum(milliwatts for _, milliwatts in connected), tuple(name for name, _ in connected))
