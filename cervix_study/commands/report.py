"""The command `report`: findings, the page, and its Markdown twin."""

from __future__ import annotations

from pathlib import Path

from cervix_study.analysis.result_rows import Finished
from fedcervix.runtime.printing import say


def report(folder: Path, *, paper_audit: bool) -> None:
    """Judge a study and write report.html, report.md, checklists.md and findings.json into its FOLDER."""
    finished = Finished.read(folder)
    from cervix_study.analysis.analysis import judge  # what draws figures is loaded when there is a study to judge
    from cervix_study.report.answer import answer
    from cervix_study.report.compose import write_report

    findings = judge(finished, paper_audit=paper_audit)
    written = write_report(findings, folder)
    say(answer(findings).headline)
    if findings.missing:
        say(f"{findings.missing} cells are not finished; continue with: cervix-study run STUDY.toml", err=True)
    say(f"wrote {', '.join(map(str, written))}")
