"""A gate's result as GitHub Actions takes it: annotations on the run, and outputs of the step.

Workflow commands: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from collections.abc import Iterator
from secrets import token_hex

from kdedge.core.report import GateResult
from kdedge.gate.render import all_checks, headline, told


def annotations(result: GateResult, advisory: bool = False) -> Iterator[str]:
    """A line for the verdict, each check that did not pass and each warning; printed, they show on the run's page.

    Args:
        advisory: nothing of it fails the job, so nothing is an error.
    """
    if result.verdict != "pass":
        yield command("warning" if advisory else "error", "kdedge", headline(result))
    for check in all_checks(result):
        if check.verdict != "pass":
            level = "warning" if advisory or check.advisory else "error"
            yield command(level, f"kdedge {check.metric}", f"{told(check)} (limit {check.limit})")
    for warning in result.warnings:
        yield command("warning", "kdedge", warning)


def command(level: str, title: str, message: str) -> str:
    """One workflow command, whatever the texts hold: a raw line break or colon would end it early."""
    return f"::{level} title={escaped_property(title)}::{escaped_data(message)}"


def escaped_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escaped_property(text: str) -> str:
    return escaped_data(text).replace(":", "%3A").replace(",", "%2C")


def outputs(values: dict[str, str]) -> str:
    """Lines for the file GITHUB_OUTPUT, between marks that no value can guess."""
    mark = f"kdedge-{token_hex(16)}"
    return "".join(f"{name}<<{mark}\n{value}\n{mark}\n" for name, value in values.items())
