"""What trtexec says of a run, read from its text: TensorRT 7 to 11, of which 11 after its source code.

Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from kdedge.profile.trtexec_failures import ERROR, Failure, find_failures
from kdedge.profile.trtexec_numbers import LayerTime, read_layer_times, read_metrics, read_numbers

LINE = re.compile(r"[^\n]*\n|[^\n]+")
STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9:]+)"
AROUND = re.compile(
    rf"\ufeff|\x1b\[[0-9;]*m|^(?:[\w.-]+ +\| |{STAMP} |> ?)*[ \t]*(?=\[|&&&&|[A-Z][\w -]*: )", re.MULTILINE
)
"""What terminals, containers' logs and pasting put around its lines."""
PREFIX = re.compile(r"(?:\[[0-9]{2}/[0-9]{2}/[0-9]{4}-[0-9]{2}:[0-9]{2}:[0-9]{2}\] )?(?:\[(?:[IWEVFX]|TRT)\] ?)*")
BANNER = re.compile(r"&&&& \w+ .*?\[TensorRT v([0-9.]+)\](?: \[b([0-9]{1,9})\])?")
DOTTED = r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
SPELT_OUT = re.compile(rf"TensorRT version: ({DOTTED})\r?$", re.MULTILINE)
VERDICT = re.compile(r"&&&& (PASSED|FAILED)\b")
PLACED = ("[DlaLayer]", "[GpuLayer]")
ERRORS = 5  # the last ones are kept
SETTING = re.compile(
    r"(Precision|Batch|Data transfers|Spin-wait|CUDA Graph|ExposeDMA|(?:Inference )?Streams|Skip inference): (\S.*)"
)
WARNINGS = {
    "enqueue_bound": ("Throughput may be bound by Enqueue Time", "the host is too slow to keep the GPU busy"),
    "h2d_bound": ("Throughput may be bound by host-to-device", "copying the inputs takes longer than computing"),
    "d2h_bound": ("Throughput may be bound by device-to-host", "copying the outputs takes longer than computing"),
    "unstable": ("GPU compute time is unstable", "the compute time varies: lock the clocks"),
    "streams": ("Multiple inference streams are used", "several queries at once: their latencies include waiting"),
    "aux_streams": ("auxiliary streams, so the", "layers ran side by side: their times add up to more than the total"),
    "tactic_memory": ("due to insufficient memory on requested size", "kernels were left out for want of memory"),
    "weak_typing": ("Weakly-typed networks have been deprecated", "TensorRT 11 takes types from the ONNX file only"),
    "shapes": ("Automatically overriding shape", "an open shape was set to the smallest"),
    "fp16_weights": ("weights are affected by this issue", "weights lose accuracy in the engine's type"),
    "other_device": ("across different models of devices", "the engine was built on another model of GPU"),
    "no_graph": ("CUDA graph capture on the stream has failed", "the engine cannot be run as a CUDA graph"),
    "no_layer_times": ("Skip layer timing collection", "layers in a CUDA graph have no times of their own"),
}
"""A name for each kind of warning: what it is known by, and what it means."""
PROMISES = {
    "build": (("built_s",), "Engine built in"),
    "load": (("deserialized_s",), "Engine deserialized in"),
    "time": (("throughput_qps", "walltime_s"), "Performance summary"),  # 7.x does not know its throughput
}


class Version(NamedTuple):
    major: int
    minor: int
    patch: int
    build: int | None = None

    def __str__(self) -> str:
        return ".".join(str(part) for part in self if part is not None)


@dataclass(frozen=True)
class Log:
    version: Version | None
    verdict: str
    """PASSED, FAILED, or empty where trtexec did not come to an end."""
    numbers: dict[str, float]
    """By names that end in their unit, such as throughput_qps or engine_mib; what is not said is not there."""
    metrics: dict[str, dict[str, float]]
    """Milliseconds: latency, end_to_end, enqueue, h2d, compute or d2h -> min, max, mean, median, p90, ..."""
    settings: dict[str, str]
    """What trtexec says it runs with."""
    warnings: dict[str, int]
    """How often each kind of WARNINGS occurs."""
    layers: tuple[LayerTime, ...]
    placement: str
    """The lines that say which layers run on a deep learning accelerator, and which on the GPU."""
    failures: tuple[Failure, ...]
    errors: tuple[str, ...]
    """The last lines of severity E."""

    @property
    def transfers(self) -> bool | None:
        """Whether copies to and from the device were part of a query: where they were not, the summary has zeros."""
        if "Data transfers" in self.settings:
            return self.settings["Data transfers"] == "Enabled"
        longest = [self.metrics[name].get("max") for name in ("h2d", "d2h") if name in self.metrics]
        return any(longest) if len(longest) == 2 and None not in longest else None

    @property
    def queries_per_second(self) -> float | None:
        """Unlike the throughput it counts an implicit batch, which there is up to TensorRT 8, as one."""
        batch = self.settings.get("Batch", "")
        rate = self.numbers.get("throughput_qps")
        return rate if rate is None or not re.fullmatch("[1-9][0-9]{0,5}", batch) else rate / int(batch)

    def objection(self, mode: str) -> str:
        """Why a run of this mode (build, load, time, profile) did not do what it was for; empty where it did.

        PASSED alone is not believed: trtexec also says so after an engine that it could not load.
        """
        causes = [failure for failure in self.failures if failure.fatal or self.verdict != "PASSED"]
        if causes:
            return str(causes[0])
        if self.verdict != "PASSED":
            said = f"; its last error: {self.errors[-1]}" if self.errors else ""
            return ("it FAILED" if self.verdict else "it ended without a verdict") + said
        if mode == "profile":
            return "" if self.layers else "it PASSED, but has no layer's time"
        names, line = PROMISES[mode]
        kept = any(name in self.numbers for name in names) and (mode != "time" or "compute" in self.metrics)
        return "" if kept else f"it PASSED, but without {line!r}"


def read_log(text: str) -> Log:
    text = AROUND.sub("", text)
    messages = [PREFIX.sub("", line, count=1) for line in LINE.findall(text)]
    verdicts = [found[1] for found in map(VERDICT.match, messages) if found]
    counts = {kind: text.count(sign) for kind, (sign, _) in WARNINGS.items()}
    return Log(
        version=read_version(text),
        verdict=min(verdicts, default=""),  # a FAILED outweighs a PASSED
        numbers=read_numbers(messages),
        metrics=read_metrics(messages),
        settings={found[1]: found[2].strip() for found in filter(None, map(SETTING.match, messages))},
        warnings={kind: count for kind, count in counts.items() if count},
        layers=tuple(read_layer_times(messages)),
        placement="".join(message for message in messages if message.startswith(PLACED)),
        failures=find_failures(text),
        errors=tuple(line.strip() for line in ERROR.findall(text)[-ERRORS:]),
    )


def read_version(text: str) -> Version | None:
    """From a banner such as [TensorRT v8510], which is 8.5.10, or [TensorRT v101601] [b11], which is 10.16.1.11."""
    banner, spelt_out = BANNER.search(text), SPELT_OUT.search(text)
    digits, build = banner.groups() if banner else ("", None)
    if re.fullmatch("[0-9]{6}", digits):
        parts = [digits[:2], digits[2:4], digits[4:]]
    elif re.fullmatch("[0-9]{4}", digits):
        parts = [digits[0], digits[1], digits[2:]]
    elif re.fullmatch(DOTTED, digits):  # some images
        parts = digits.split(".")
    elif spelt_out:
        parts = spelt_out[1].split(".")
    else:
        return None
    return Version(int(parts[0]), int(parts[1]), int(parts[2]), None if build is None else int(build))
