"""What is recorded of a run on a device that is not the one that exported it."""

from typing import Any

from pydantic import Field

from kdedge.core.record import Record
from kdedge.core.report import ExportedFile, Hop


class DeviceReport(Record):
    """A run's engines on a device that is not the one that exported it."""

    device: dict[str, dict[str, Any]]
    backend: str
    onnx: dict[str, str] = Field({})
    """SHA-256 of the ONNX files that the engines were built from."""
    engines: dict[str, ExportedFile] = Field({})
    """Built there; paths are relative to the run."""
    hops: list[Hop]
    """engine-fp32 and so on, each against its ONNX file, which was asked where it was exported."""
    profiles: list[str]
    """Names of the records beside this one."""
