"""A machine on which two models are measured in turns."""

from typing import Any

from kdedge.profile.targets import LocalTarget


class Timed(LocalTarget):
    """This machine, where only the time of a query is made up."""

    def __init__(self, ratio: float = 1.0, throttled: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.reply = {"ratio": ratio, "base_ms": 1.0, "new_ms": ratio, "settled": True, "throttled": list(throttled)}
        self.asked: list[dict[str, Any]] = []

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        return self.reply if request["mode"] == "paired" else super().run(request)
