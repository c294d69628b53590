"""The drift monitor of a flavour: a check of its report that blocks nothing."""

from collections.abc import Callable, Mapping

from sid_pipeline.alerts import Alert, tell
from sid_pipeline.assets.recording import Check
from sid_pipeline.drift import drifted, figures_of, new_figures, record
from sid_pipeline.evaluation.drift import Finding, advice
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.watch import what_is_served

DRIFT = "drift"
DESCRIPTION = (
    "The night's figures against earlier nights' of the release: products out of distribution, mean distance, use of "
    "the codes, shared SIDs, rejected rows, the cleaner's fallbacks and cost. It blocks nothing."
)


def judge_night(
    warehouse: Warehouse, flavour: str, release: str, headline: Mapping[str, float], warn: Callable[[str], None]
) -> Check:
    """Record the night that a release's SIDs stand on, judge it, and tell people of a drift that begins with it.

    Args:
        headline: of the night's report.
        warn: is told when an alert could not be sent.

    What is recorded is not told of again, so it is told first: a kill in between repeats an alert and loses none.
    """
    night = figures_of(warehouse, flavour, release, headline)
    findings = drifted(warehouse, flavour, release, tonight=night)
    before = {finding.monitor for finding in drifted(warehouse, flavour, release, before=night.snapshot)}
    begins = {finding.monitor for finding in findings} - before
    if begins and new_figures(warehouse, flavour, release, night):
        for fault in tell(warehouse.settings, _alert(warehouse, flavour, release, night.snapshot, findings)):
            warn(fault)
    record(warehouse, flavour, release, night)
    told = ". ".join(finding.sentence for finding in findings)
    sentence = f"{told}. {advice(findings)}." if findings else f"{night.snapshot} is like the nights before it."
    return Check(DRIFT, not findings, sentence, night.figures, warning=True)


def _alert(warehouse: Warehouse, flavour: str, release: str, snapshot: str, findings: list[Finding]) -> Alert:
    return Alert(
        "drift",
        f"{flavour} {release} has drifted as of {snapshot}",
        "\n".join(finding.sentence for finding in findings),
        what_is_served(warehouse),
        f"{advice(findings)}. docs/runbook.md says how.",
    )
