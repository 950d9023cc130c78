"""The baseline: the numbers of an accepted run, and what must be the same for measured ones to be compared with it.

A JSON file made to live in a repository and be reviewed there: sorted keys, no paths, no host names.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdedge.core.errors import Incomparable, KdedgeError
from kdedge.core.gating import Accepted, Baseline, Snapshot
from kdedge.core.profiling import ProfileReport
from kdedge.core.rundir import digest, write_text

SCHEMA = 2
KEPT = 20
"""Earlier baselines."""
ACCEPT = 'kdedge gate --update --baseline FILE --reason "accepted"'
WORTH_A_LOOK = (
    "kernel",
    "distro",
    "container",
    "governor",
    "jetpack",
    "driver",
    "cuda",
    "cudnn",
    "numpy",
    "memory_method",
)
NUMBERS = re.compile(r"\[\s+([-+.\w]+(?:,\s+[-+.\w]+)*)\s+\]")
"""A list of numbers in indented JSON."""


def fingerprint_of(profiles: list[ProfileReport]) -> dict[str, Any]:
    """The machine and the way of measuring that a run's profiles share; empty without a profile.

    `match` must be equal for measured numbers to be compared, `note` explains them.
    """
    if not profiles:
        return {}
    note = profiles[0].device.get("note", {})
    return {
        "match": machine_of(profiles) | {"shapes": profiles[0].shapes},
        "note": {name: note[name] for name in WORTH_A_LOOK if name in note},
    }


def machine_of(profiles: list[ProfileReport]) -> dict[str, Any]:
    """What decides how fast a model is beside its own shape; empty without a profile."""
    if not profiles:
        return {}
    first = profiles[0]
    method = {"backend": first.backend, "provider": first.provider, "threads": first.threads, "batch": first.batch}
    return {**first.device.get("match", {}), **method}


def machine_digest(fingerprint: dict[str, Any]) -> str:
    """Of what must be equal; empty where it is not known."""
    return digest(fingerprint["match"])[:16] if fingerprint.get("match") else ""


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


def make_baseline(
    run: Snapshot,
    reason: str,
    created: str,
    before: Baseline | None = None,
    accepts: Iterable[str] = (),
    tool: dict[str, str] | None = None,
) -> Baseline:
    """Accept a run's numbers.

    Args:
        reason: why they are acceptable, for the reviewer of the file.
        created: the date, as the file shall show it.
        before: the baseline that it takes the place of, which goes into the history.
        accepts: metrics that are worse than `before` allows.
        tool: the versions it was made with.
    """
    return Baseline(
        fingerprint=run.fingerprint,
        metrics={name: run.metrics[name] for name in sorted(run.metrics)},
        answers={name: run.answers[name] for name in sorted(run.answers)},
        reason=reason,
        created=created,
        accepts=sorted(accepts),
        tool=tool or {},
        history=[*before.history, entry_of(before)][-KEPT:] if before else [],
    )


def entry_of(baseline: Baseline) -> Accepted:
    """What is kept of a baseline."""
    samples = {name: metric.samples for name, metric in baseline.metrics.items() if metric.samples}
    return Accepted(
        created=baseline.created,
        reason=baseline.reason,
        accepts=baseline.accepts,
        machine=machine_digest(baseline.fingerprint),
        values={name: metric.value for name, metric in baseline.metrics.items()},
        samples=samples,
    )


def load_baseline(path: Path, name: str | None = None) -> Baseline:
    """Read an accepted run's numbers.

    Args:
        name: how to call the file where the path itself shall not be told.

    Raises:
        Incomparable: there is no such file, or one of a newer schema.
        KdedgeError: the file cannot be read or is no baseline.
    """
    name = name or path.name
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Incomparable(
            f"no baseline at {name}", "limits on change need one", f"{ACCEPT}   (accepts this run)"
        ) from None
    except OSError as error:
        raise KdedgeError(f"cannot read the baseline {name}", error.strerror or "", "name a JSON file") from None
    except ValueError as error:
        raise KdedgeError(f"cannot read the baseline {name}", str(error), restore(name)) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        why = f"it has schema version {version}, this kdedge reads up to {SCHEMA}"
        raise Incomparable(f"the baseline {name} is of a newer kdedge", why, "pip install --upgrade kdedge")
    try:
        return Baseline.model_validate(migrated(data) if isinstance(data, dict) else data)
    except ValidationError as error:
        raise KdedgeError(f"{name} is not a baseline", problem(error), restore(name)) from None


def restore(name: str) -> str:
    return f"git checkout {name}   (or remove it, and: {ACCEPT})"


def migrated(data: dict[str, Any]) -> dict[str, Any]:
    """A file of version 1 has no more than values: what was measured is `insufficient` until the next --update."""
    return data | {"schema_version": SCHEMA} if data.get("schema_version") == 1 else data


def problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def save_baseline(path: Path, baseline: Baseline) -> None:
    """The same file for equal baselines, a list of numbers on one line."""
    plain = {"schema_version": SCHEMA, **baseline.model_dump(mode="json", exclude_defaults=True)}
    text = json.dumps(plain, indent=2, sort_keys=True)
    write_text(path, NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep other updates of a baseline waiting, through a lock of its folder that falls when the process ends."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
