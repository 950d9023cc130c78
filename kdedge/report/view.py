"""What the page says, as strings and rows: no markup and no drawing."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import yaml

from kdedge.core.console import many, percent, quantity, size
from kdedge.core.deployment import Precision
from kdedge.core.profiling import ProfileReport, gather_notes
from kdedge.core.quality import MEASURES, Measure
from kdedge.core.report import Check, ExportReport, GateResult, TrainedModel, TrainingReport, Verdict

Rows = list[list[str]]
Pairs = list[tuple[str, str]]
PRECISIONS = get_args(Precision)
"""Names of the student's files and profiles; others are of networks that stand beside it."""
MINUS = "\N{MINUS SIGN}"
BANNERS: dict[Verdict, tuple[str, str]] = {
    "pass": ("Passed", "every blocking limit is kept"),
    "regression": ("Failed", "a blocking limit is not kept"),
    "incomparable": ("Undecided", "the baseline is from another environment"),
    "unstable": ("Undecided", "a measurement did not settle"),
    "insufficient": ("Undecided", "there is too little to compare with"),
}


@dataclass(frozen=True)
class Banner:
    kind: str
    """CSS class: a verdict, or none."""
    title: str
    text: str


@dataclass(frozen=True)
class Tile:
    label: str
    value: str
    notes: tuple[str, ...] = ()


def banner(gate: GateResult | None) -> Banner:
    if gate is None:
        return Banner("none", "Not gated", "kdedge gate holds this run against its budgets")
    title, text = BANNERS[gate.verdict]
    kept = sum(check.verdict == "pass" for check in gate.checks)
    return Banner(gate.verdict, title, f"{text}; {kept} of {len(gate.checks)} checks passed")


def deployed(training: TrainingReport, export: ExportReport | None) -> TrainedModel:
    """The student as it was exported; as it was trained where that is still to come."""
    return export.deployed(training.student) if export else training.student


def tiles(training: TrainingReport, export: ExportReport | None, profiles: Sequence[ProfileReport]) -> Iterator[Tile]:
    """The four numbers that a reader came for."""
    student = deployed(training, export)
    teacher, alone = training.teacher, training.baseline
    gains = [f"{points(student.accuracy - teacher.accuracy)} against the teacher"] if teacher else []
    gains += [f"{points(student.accuracy - alone.accuracy)} against labels alone"] if alone else []
    gains += [f"{points(student.accuracy - net.accuracy)} against {name}" for name, net in training.controls.items()]
    yield Tile(f"Student {training.measure.label}", percent(student.accuracy), tuple(gains))
    less = f"{ratio(teacher.params, student.params)} fewer than the teacher's {many(teacher.params)}" if teacher else ""
    yield Tile("Parameters", many(student.params), (less, f"{many(student.macs)} MACs an image"))
    files = {name: file for name, file in export.onnx.items() if name in PRECISIONS} if export else {}
    if export and files:
        precision, file = min(files.items(), key=lambda item: item[1].bytes)
        quality = export.quality(precision)
        notes = (precision, f"{percent(quality.accuracy)} {training.measure.label}" if quality else "")
        yield Tile("Smallest model", size(file.bytes), notes)
    measured = [profile for profile in profiles if profile.name in PRECISIONS]
    if measured:
        fastest = min(measured, key=lambda profile: profile.latency.median)
        setting = f"{fastest.name}, batch {fastest.batch}, {fastest.threads} threads"
        yield Tile("Median latency", milliseconds(fastest.latency.median), (setting, fastest.provider))


def warnings(
    training: TrainingReport, export: ExportReport | None, profiles: Sequence[ProfileReport], gate: GateResult | None
) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = list(gate.warnings) if gate else []
    student, alone = deployed(training, export), training.baseline
    if alone and student.accuracy < alone.accuracy and gate is None:
        gain = points(student.accuracy - alone.accuracy)
        found.append(f"the student is {gain} against the whole network trained on the labels alone")
    if export:
        found += [f"{hop.name}: {problem}" for hop in export.hops for problem in hop.problems] + export.warned()
    for profile in profiles:
        cut = sum(not sample.settled for sample in profile.samples)
        if cut:
            found.append(f"{profile.name}: the warm-up of {cut} of {len(profile.samples)} processes did not settle")
    return found


def notes(export: ExportReport | None, profiles: Sequence[ProfileReport]) -> list[str]:
    """What the summary's rows do not show, such as where fp16 is only how weights are stored."""
    found = (
        [f"{precision}: {note}" for precision, file in (export.onnx | export.engines).items() for note in file.notes]
        if export
        else []
    )
    found += export.told() if export else []
    return list(dict.fromkeys(found + gather_notes(profiles)))


def networks(training: TrainingReport) -> Iterator[tuple[str, TrainedModel]]:
    for role, network in (
        ("teacher", training.teacher),
        *training.others().items(),
        ("student", training.student),
        ("labels alone", training.baseline),
        *training.controls.items(),
    ):
        if network:
            yield role, network


def exits(network: TrainedModel) -> str:
    """Test top-1 of the early exits in order, then of all classifiers together."""
    together = [] if network.ensemble is None else [percent(network.ensemble)]
    return ", ".join([" / ".join(percent(top1) for top1 in network.exits.values()), *together]) or "-"


def network_columns(training: TrainingReport) -> tuple[str, ...]:
    """Early exits are of classifiers alone."""
    label = training.measure.label
    exits = ("exits, all",) if training.task == "classify" else ()
    costs = ("parameters", "MACs", "weights", "epochs", "source")
    return ("network", "model", f"test {label}", f"val. {label}", *exits, *costs)


def network_rows(training: TrainingReport) -> Rows:
    return [
        [
            role,
            " ".join([network.model, *(f"{key}={value}" for key, value in network.options.items())]),
            percent(network.accuracy),
            percent(network.validation_accuracy),
            *([exits(network)] if training.task == "classify" else []),
            many(network.params),
            many(network.macs),
            size(network.weight_bytes),
            f"{network.epochs} in {network.seconds:.0f} s" if network.epochs else "-",
            network.source or "-",
        ]
        for role, network in networks(training)
    ]


def check_rows(checks: Iterable[Check]) -> list[dict[str, str]]:
    return [
        {
            "metric": check.metric,
            "value": amount(check.value, check.unit),
            "limit": check.limit.replace("<=", "\N{LESS-THAN OR EQUAL TO}").replace(
                ">=", "\N{GREATER-THAN OR EQUAL TO}"
            ),
            "baseline": amount(check.baseline, check.unit),
            "verdict": check.verdict,
            "advisory": "advisory" if check.advisory else "",
            "reason": check.reason,
        }
        for check in checks
    ]


def facts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Nested plain data as labels and texts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from facts(inner, f"{path} {key}".strip().replace("_", " "))
    elif isinstance(value, list) and all(not isinstance(inner, dict | list) for inner in value):
        yield path, ", ".join(map(str, value)) or "-"
    elif value is None or isinstance(value, str):
        yield path, value or "-"
    elif path.startswith(("memory ", "swap ")) and isinstance(value, int):
        yield path, size(value)
    else:
        yield path, json.dumps(value)


def as_yaml(recipe: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(recipe, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)


def accuracy_name(measure: Measure) -> str:
    return f"{measure.label} accuracy" if measure == MEASURES["classify"] else measure.label


def capital(text: str) -> str:
    """As a sentence begins; mAP stays as it is."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def amount(value: float | None, unit: str) -> str:
    return "-" if value is None else quantity(value, unit)


def milliseconds(value: float) -> str:
    return quantity(value, "ms")


def points(difference: float) -> str:
    return f"{100 * difference:+.2f} points".replace("-", MINUS)


def ratio(large: float, small: float) -> str:
    return f"{large / small:.1f}\N{MULTIPLICATION SIGN}" if small else "-"
