"""The baseline: the numbers of an accepted run, and what must be the same for measured ones to be compared with it.

A JSON file made to live in a repository and be reviewed there: sorted keys, no paths, no host names.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdedge.core.errors import Incomparable, KdedgeError
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import Baseline, Metric

SCHEMA = 1
ACCEPT = 'kdedge gate --update --baseline FILE --reason "accepted"'
WORTH_A_LOOK = ("kernel", "distro", "container", "governor", "numpy")


def fingerprint_of(profiles: list[ProfileReport]) -> dict[str, Any]:
    """The machine and the way of measuring that a run's profiles share; empty without a profile.

    `match` must be equal for measured numbers to be compared, `note` explains them.
    """
    if not profiles:
        return {}
    first = profiles[0]
    method = {"backend": first.backend, "provider": first.provider, "threads": first.threads, "batch": first.batch}
    return {"match": first.device.get("match", {}) | method, "note": first.device.get("note", {})}


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What must be the same and is not."""
    old, new = before.get("match", {}), now.get("match", {})
    if not old or not new:
        return [f"{'this run' if old else 'the baseline'} does not say on what machine it was measured"]
    return differing(sorted(old.keys() | new.keys()), old, new)


def remarks(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What may differ, but is worth a look when numbers moved."""
    old, new = before.get("note", {}), now.get("note", {})
    return [f"since the baseline: {line}" for line in differing(WORTH_A_LOOK, old, new)] if old and new else []


def differing(names: Iterable[str], before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    pairs = [(name, before.get(name), now.get(name)) for name in names]
    return [f"{name} was {shown(old)}, is {shown(new)}" for name, old, new in pairs if old != new]


def shown(value: Any) -> str:
    return "not recorded" if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def make_baseline(metrics: dict[str, Metric], fingerprint: dict[str, Any], reason: str, created: str) -> Baseline:
    """Accept a run's numbers.

    Args:
        reason: why they are acceptable, for the reviewer of the file.
        created: the date, as the file shall show it.
    """
    return Baseline(
        fingerprint=fingerprint,
        metrics={name: metrics[name] for name in sorted(metrics)},
        reason=reason,
        created=created,
    )


def load_baseline(path: Path) -> Baseline:
    """Read an accepted run's numbers.

    Raises:
        Incomparable: there is no such file, or one of another schema.
        KdedgeError: the file cannot be read or is no baseline.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Incomparable(
            f"no baseline at {path}", "limits on change need one", f"{ACCEPT}   (accepts this run)"
        ) from None
    except (OSError, ValueError) as error:
        raise KdedgeError(f"cannot read the baseline {path}", str(error), f"restore it, or: {ACCEPT}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA and isinstance(data, dict):
        why = f"it has schema version {version}, this kdedge reads {SCHEMA}"
        raise Incomparable(f"the baseline {path} cannot be compared", why, f"{ACCEPT}   (writes it anew)")
    try:
        return Baseline.model_validate(data)
    except ValidationError as error:
        raise KdedgeError(f"{path} is not a baseline", problem(error), f"restore it, or: {ACCEPT}") from None


def problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
