"""A gate's result as the terminal's table, as Markdown for a pull request, and as JUnit XML."""

from collections.abc import Iterable, Sized
from xml.etree import ElementTree

from kdedge.core.console import quantity
from kdedge.core.markdown import escaped, table
from kdedge.core.report import Check, GateResult, Verdict

COLUMNS = ("metric", "value", "limit", "baseline", "verdict", "why")
MARKER, MARKER_AGAINST = "<!-- kdedge gate -->", "<!-- kdedge against -->"
"""What a bot finds its comment by; a pull request may have one of each."""
HEADLINES: dict[Verdict, str] = {
    "pass": "passed",
    "regression": "failed: a limit is not kept",
    "incomparable": "undecided: the baseline is from another environment",
    "unstable": "undecided: a measurement did not settle",
    "insufficient": "undecided: there is too little to compare with",
}
AGAINST: dict[Verdict, str] = {
    "pass": "passed: no worse than",
    "incomparable": "undecided: cannot be held against",
    "unstable": "undecided: too unsteady to tell whether it is slower than",
    "insufficient": "undecided: too little was measured to hold it against",
}
WORSE = {"ms": "slower", "fraction": "less accurate", "bytes": "larger", "count": "larger"}
"""By the unit of what is."""
JUNIT_KINDS: dict[Verdict, str] = {
    "regression": "failure",
    "unstable": "error",
    "incomparable": "skipped",
    "insufficient": "skipped",
}


def rows(checks: Iterable[Check]) -> list[list[str]]:
    """One row a check, under COLUMNS."""
    return [
        [
            check.metric,
            amount(check, check.value),
            check.limit,
            amount(check, check.baseline),
            verdict(check),
            check.reason,
        ]
        for check in checks
    ]


def amount(check: Check, value: float | None) -> str:
    return "-" if value is None else quantity(value, check.unit)


def verdict(check: Check) -> str:
    return f"{check.verdict} (advisory)" if check.advisory and check.verdict != "pass" else check.verdict


def columns(result: GateResult) -> list[str]:
    return ["base" if result.against and name == "baseline" else name for name in COLUMNS]


def headline(result: GateResult) -> str:
    if not result.against:
        return f"gate {HEADLINES[result.verdict]}"
    if result.verdict == "regression":
        return f"gate failed: {worse(result)} than {result.against}"
    return f"gate {AGAINST[result.verdict]} {result.against}"


def worse(result: GateResult) -> str:
    """In what ways it is."""
    missed = (check for check in result.checks if check.verdict == "regression" and not check.advisory)
    ways = list(dict.fromkeys(WORSE.get(check.unit, "worse") for check in missed))
    return " and ".join(ways)


def markdown(result: GateResult) -> str:
    """For a comment that a bot finds again by its hidden first line."""
    marker = MARKER_AGAINST if result.against else MARKER
    lines = [marker, f"### kdedge {escaped(headline(result))}", ""]
    at_once, quiet = result.folded
    if at_once:
        lines += [*table(columns(result), rows(at_once)), ""]
    lines += [f"- warning: {escaped(text)}" for text in result.warnings]
    if result.against:
        lines.append(f"- base: {escaped(result.against)}, measured in turns with the run")
    if result.baseline:
        lines.append(f"- baseline: {escaped(result.baseline)}")
    if quiet:
        lines += details(quiet_line(quiet), table(columns(result), rows(quiet)))
    if result.metrics:
        known = [[name, quantity(metric.value, metric.unit)] for name, metric in sorted(result.metrics.items())]
        lines += details("All metrics", table(("metric", "value"), known))
    return "\n".join(lines).rstrip() + "\n"


def details(title: str, lines: Iterable[str]) -> list[str]:
    return ["", f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def quiet_line(checks: Sized) -> str:
    return f"passed against the baseline: {len(checks)}"


def all_checks(result: GateResult) -> list[Check]:
    """What was checked, and the baseline, or the other model, where it alone is why nothing passes."""
    blocking = {check.verdict for check in result.checks if not check.advisory}
    if result.verdict == "pass" or result.verdict in blocking:
        return result.checks
    name, why = "base" if result.against else "baseline", headline(result).removeprefix("gate ")
    return [*result.checks, Check(metric=name, value=None, limit="at hand", verdict=result.verdict, reason=why)]


def junit(result: GateResult) -> str:
    """One testcase a check.  An advisory check never fails: what it found is the text of a skipped one."""
    checks = all_checks(result)
    suite = ElementTree.Element("testsuite", name=suite_name(result), tests=str(len(checks)))
    kinds = [add_case(suite, check) for check in checks]
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(kinds.count(kind)))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def suite_name(result: GateResult) -> str:
    return printable(f"kdedge gate against {result.against}" if result.against else "kdedge gate")


def add_case(suite: ElementTree.Element, check: Check) -> str | None:
    group = check.metric.rpartition("/")[0] or "metrics"
    name = printable(f"{check.metric} {check.limit}")
    case = ElementTree.SubElement(suite, "testcase", classname=printable(f"kdedge.{group}"), name=name)
    kind = JUNIT_KINDS.get(check.verdict)
    if kind is None:
        return None
    kind = "skipped" if check.advisory else kind
    ElementTree.SubElement(case, kind, message=printable(told(check)), type=check.verdict)
    return kind


def told(check: Check) -> str:
    """A check in one sentence."""
    return f"{verdict(check)}: {amount(check, check.value)}, {check.reason}".rstrip(", ")


def printable(text: str) -> str:
    """Without the characters that XML has no way to write."""
    return "".join(character if character.isprintable() else " " for character in text)
