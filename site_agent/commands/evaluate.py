"""The command `evaluate`: every classifier on the test images; the report, its numbers and the predictions."""

from __future__ import annotations

import contextlib
import functools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.printing import say
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.classifier.comparable import comparable, tuned
from site_agent.commands.display import Display
from site_agent.commands.loading import loading
from site_agent.federation import shown
from site_agent.home import SiteHome
from site_agent.store.report_store import CLINICAL_FILE, LATEST, PAGE_FILE

if TYPE_CHECKING:  # the report stands on torch and matplotlib, which help does not wait for
    from site_agent.report.content import SiteReport


def evaluate(home: SiteHome, name: str, run: str, title: str, *, look: bool = False) -> None:
    """Score the classifiers of the set `name` and write a report called `title`; `look`: with pictures of women."""
    tuned(home, name)
    loading("evaluate")
    from site_agent.report.printed import printed
    from site_agent.report.writing import write_report

    now = datetime.now(UTC)
    with contextlib.closing(Display()) as display:
        content = _made(home, name, run, now, display, look=look)
        display.show(shown.Message("evaluate: drawing the page"))
        folder = write_report(content, home.reports, title or content.run or name or "site", now)
    console = stdout_console()
    for part in printed(content):
        console.print(part)
    if content.clinical is not None:
        say(f"for clinicians: {folder / CLINICAL_FILE}")
    say(f"report: {folder / PAGE_FILE}\nfolder: {folder} (also reports/{LATEST}); it stays at this site")


def _made(home: SiteHome, name: str, run: str, now: datetime, display: Display, *, look: bool) -> SiteReport:
    """Return the report. Raises ModelError where there is nothing to compare, DataError, StorageError."""
    from site_agent.commands.setting import site_name
    from site_agent.data import dataset
    from site_agent.network.devices import ready
    from site_agent.report.clinic_data import OpenedImages
    from site_agent.report.report_data import site_report

    display.show(shown.Message("evaluate: looking at the images"))
    device = ready(home.config().hardware).device
    collection = dataset.open_collection(home, functools.partial(_show, display, shown.Advanced, "looking at images"))
    found = comparable(home, collection, name=name, run=run)
    recipe = found.stored[0].recipe
    reading = functools.partial(_show, display, shown.Advanced, "decoding test images")
    test = dataset.labelled(home, collection, recipe, "test", reading)
    tell = functools.partial(_show, display, shown.Step)
    opened = OpenedImages(home, collection, found, test, device, tell, look=look)
    joined = home.key_file("site.crt").exists()
    return site_report(opened, site_name(home) if joined else "this site", now)


def _show(display: Display, kind: type[shown.Advanced], stage: str, done: int, of: int) -> None:
    display.show(kind("evaluate", WorkProgress(stage, done, of)))
