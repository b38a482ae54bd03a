"""The section on devices that were left out: each start on pictures of a device that it has not learned from."""

from __future__ import annotations

from collections.abc import Iterable

from cervix_study.analysis.findings import SiteFindings, StudyFindings
from cervix_study.report.document import Block, Heading, Table, Text, cells, columns
from cervix_study.report.scores import named
from cervix_study.report.wording import with_interval


def section(findings: StudyFindings) -> Iterable[Block]:
    """Yield a table per site; nothing where no device was left out."""
    if not findings.study.axes.leave_out_devices:
        return
    yield Heading("Devices that were left out")
    yield Text(
        "AUC on the women of each device, of classifiers that learned from the women of the others only. Pictures of "
        "a left-out device took no part in learning without labels either. The tables above average over devices."
    )
    for found in findings.sites:
        if found.left_out:
            yield Heading(named(found, findings), 3)
            yield _table(found, f"AUC on each left-out device at {named(found, findings)}")


def _table(found: SiteFindings, label: str) -> Table:
    women = {one.device: (one.women, one.case_women) for one in found.left_out}
    by_place = {(one.label, one.device): one.auc for one in found.left_out}
    names = dict.fromkeys(one.label for one in found.left_out)
    rows = [cells(name, *(with_interval("auc", by_place[name, device]) for device in women)) for name in names]
    tested = cells("women (cases)", *(f"{many} ({cases})" for many, cases in women.values()))
    return Table(columns("start", *women), (*rows, tested), label)
