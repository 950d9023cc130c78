"""A gate's result as the terminal's table, as Markdown for a pull request, and as JUnit XML."""

from xml.etree import ElementTree

from kdedge.core.console import quantity
from kdedge.core.report import Check, GateResult, Verdict

COLUMNS = ("metric", "value", "limit", "baseline", "verdict", "why")
MARKER = "<!-- kdedge gate -->"
HEADLINES: dict[Verdict, str] = {
    "pass": "passed",
    "regression": "failed: a budget is not kept",
    "incomparable": "undecided: the baseline is from another environment",
    "unstable": "undecided: a measurement did not settle",
    "insufficient": "undecided: there is no baseline to compare with",
}
JUNIT_KINDS: dict[Verdict, str] = {
    "regression": "failure",
    "unstable": "error",
    "incomparable": "skipped",
    "insufficient": "skipped",
}


def rows(result: GateResult) -> list[list[str]]:
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
        for check in result.checks
    ]


def amount(check: Check, value: float | None) -> str:
    return "-" if value is None else quantity(value, check.unit)


def verdict(check: Check) -> str:
    return f"{check.verdict} (advisory)" if check.advisory and check.verdict != "pass" else check.verdict


def headline(result: GateResult) -> str:
    return f"gate {HEADLINES[result.verdict]}"


def markdown(result: GateResult) -> str:
    """For a comment that a bot finds again by its hidden first line."""
    lines = [MARKER, f"### kdedge {headline(result)}", ""]
    if result.checks:
        lines += [table_row(COLUMNS), table_row(["---"] * len(COLUMNS)), *map(table_row, rows(result)), ""]
    lines += [f"- warning: {escaped(text)}" for text in result.warnings]
    if result.baseline:
        lines.append(f"- baseline: {escaped(result.baseline)}")
    if result.metrics:
        lines += [
            "",
            "<details><summary>All metrics</summary>",
            "",
            table_row(["metric", "value"]),
            table_row(["---"] * 2),
        ]
        lines += [
            table_row([name, quantity(metric.value, metric.unit)]) for name, metric in sorted(result.metrics.items())
        ]
        lines += ["", "</details>"]
    return "\n".join(lines).rstrip() + "\n"


def table_row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def junit(result: GateResult) -> str:
    """One testcase a check.  An advisory check never fails: what it found is the text of a skipped one."""
    suite = ElementTree.Element("testsuite", name="kdedge gate", tests=str(len(result.checks)))
    kinds = [add_case(suite, check) for check in result.checks]
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(kinds.count(kind)))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def add_case(suite: ElementTree.Element, check: Check) -> str | None:
    group = check.metric.rpartition("/")[0] or "metrics"
    case = ElementTree.SubElement(suite, "testcase", classname=f"kdedge.{group}", name=f"{check.metric} {check.limit}")
    kind = JUNIT_KINDS.get(check.verdict)
    if kind is None:
        return None
    kind = "skipped" if check.advisory else kind
    message = f"{verdict(check)}: {amount(check, check.value)}, {check.reason}".rstrip(", ")
    ElementTree.SubElement(case, kind, message=message, type=check.verdict)
    return kind
