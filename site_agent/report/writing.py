"""All files of one report, in a folder of its own."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from site_agent.report import results
from site_agent.report.clinical_page import render_clinical
from site_agent.report.content import SiteReport
from site_agent.report.page import render
from site_agent.report.predictions import images_csv, women_csv
from site_agent.store.report_store import CLINICAL_FILE, PAGE_FILE, PREDICTIONS_FILE, RESULTS_FILE, WOMEN_FILE, publish


def write_report(report: SiteReport, reports: Path, name: str, now: datetime) -> Path:
    """Write both pages, numbers and predictions into a new folder below `reports`; return it. `now` is UTC.

    Raises StorageError.
    """
    files = {
        PAGE_FILE: render(report).encode("utf-8", "backslashreplace"),
        RESULTS_FILE: results.dump(report).encode(),
    }
    if report.clinical is not None:
        files[CLINICAL_FILE] = render_clinical(report, report.clinical).encode("utf-8", "backslashreplace")
    if report.predictions is not None:
        files |= {PREDICTIONS_FILE: images_csv(report.predictions), WOMEN_FILE: women_csv(report.predictions)}
    return publish(reports, name, now, files)
