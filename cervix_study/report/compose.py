"""The whole report: findings in, a document out; and its files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from cervix_study.analysis.findings import StudyFindings
from cervix_study.report import (
    checklists,
    claims,
    closing_sections,
    data,
    devices,
    figures,
    scores,
    sequence,
    training,
)
from cervix_study.report.answer import answer
from cervix_study.report.document import Document
from cervix_study.report.markdown import markdown
from cervix_study.report.page import page
from fedcervix.disk.files import write_whole
from site_agent.report.answer import counted, listed

PAGE_FILE = "report.html"
MARKDOWN_FILE = "report.md"
FINDINGS_FILE = "findings.json"
CHECKLISTS_FILE = "checklists.md"


def compose(findings: StudyFindings) -> Document:
    """Return the report as a document."""
    study = findings.study
    by_start = figures.of_starts(study.axes.starts)
    blocks = (
        *data.table_one(findings),
        *scores.table_two(findings),
        *scores.figure_two(findings, by_start),
        *scores.by_woman(findings),
        *devices.section(findings),
        *sequence.section(findings),
        *claims.ours(findings),
        *claims.printed(findings),
        *training.choices(findings),
        *training.curves(findings, by_start),
        *training.fractions(findings, by_start),
        *training.controls(findings),
        *scores.calibrations(findings, by_start),
        *training.profiles(findings),
        *data.leaks(findings),
        *closing_sections.costs(findings),
        *closing_sections.glossary(),
        *closing_sections.provenance(findings),
    )
    return Document(
        title=f"Study {study.name}: ways to start a cervix classifier",
        facts=_facts(findings),
        notice=_notice(findings),
        answer=answer(findings),
        blocks=blocks,
        footer=f"Report of the study {study.name}, fedcervix {findings.versions['fedcervix']}. This page loads "
        "nothing from the network.",
    )


def _facts(findings: StudyFindings) -> tuple[str, ...]:
    study = findings.study
    when = f"ended **{study.ended_at[:10]}**" if study.ended_at else f"begun **{study.begun_at[:10]}**"
    return (
        f"sites **{listed([site.name for site in study.sites])}**",
        f"profile **{listed(study.axes.profiles)}**",
        f"**{counted(len(findings.cells), 'training')}** ({study.state})",
        when,
    )


def _notice(findings: StudyFindings) -> str:
    phantoms = [site.name for site in findings.study.sites if site.phantom]
    drawn = f"**{listed(phantoms)}: drawn pictures, no patients.** " if phantoms else ""
    return f"{drawn}This page names no patient and no image. The study's folder does: keep it where the images are."


def write_report(findings: StudyFindings, folder: Path) -> tuple[Path, ...]:
    """Write the report's files into `folder`; return their paths. Raises StorageError."""
    document = compose(findings)
    files = {
        PAGE_FILE: page(document),
        MARKDOWN_FILE: markdown(document),
        CHECKLISTS_FILE: checklists.sheets(findings),
        FINDINGS_FILE: json.dumps(dataclasses.asdict(findings), indent=1, allow_nan=False) + "\n",
    }
    for name, text in files.items():
        write_whole(folder / name, text.encode())
    return tuple(folder / name for name in files)
