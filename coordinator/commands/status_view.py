"""The overview as a person reads it: tables on a terminal, the same lines in a pipe.

A site's texts are shown as plain text: neither rich's markup nor a terminal's control characters have an effect (see
`shown`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from coordinator.run.history import RunLine
from coordinator.run.status import shown
from coordinator.run.status_document import (
    FailureStatus,
    PredictionStatus,
    SiteStatus,
    StatusDocument,
    WaitStatus,
)
from fedcervix import __version__
from fedcervix.core.pace import Span
from fedcervix.runtime.printing import utc
from fedcervix.runtime.quantities import duration, durations, size
from fedcervix.runtime.record import LedgerLine

COLOURS = {
    "present": "green",
    "silent": "yellow",
    "absent": "yellow",
    "failed": "red",
    "refused": "red",
    "revoked": "red",
}
OUTCOME_COLOURS = {"OK": "bold green", "DEGRADED": "bold yellow", "ABORTED": "bold red"}
LEDGER_ROWS_MAX = 12
ALARM_ROWS_MAX = 20
FAILURE_CHARS_MAX = 2000
RUN_REASON_CHARS_MAX = 200
CALLS_FEW, CONNECTIONS_FEW = 8, 2
"""of an agent: a stream, a transfer, reports whose answers are on their way; and `site-agent doctor` beside it"""


def render(document: StatusDocument) -> RenderableType:
    """Return the overview, drawn."""
    return Group(
        _headline(document), _sites(document), _waits(document), _ledger(document), _alarms(document), *_notes(document)
    )


def runs_table(entries: Sequence[RunLine]) -> Table:
    """Return the runs of a home, drawn."""
    table = Table(
        Column("run", no_wrap=True), "mode", "profile", "begun (UTC)", "rounds", "best", "outcome", "model", "reason"
    )
    for entry in entries:
        table.add_row(
            Text(entry.run),
            entry.mode,
            entry.profile,
            utc(entry.begun_at, "%Y-%m-%d %H:%M"),
            str(entry.rounds),
            str(entry.best_round or ""),
            Text(entry.outcome, OUTCOME_COLOURS.get(entry.outcome, "")),
            "yes" if entry.model else "no",
            Text(shown(entry.reason, RUN_REASON_CHARS_MAX)),
        )
    return table


def _headline(d: StatusDocument) -> Text:
    text = Text()
    text.append(f"run {d.run}  ", "bold")
    text.append(f"{d.mode}, profile {d.profile}, plan {d.plan[:12]}\n")
    text.append(f"round {d.round} of at most {d.rounds_max}, {d.phase} for {_ago(d.now - d.since) if d.since else '?'}")
    if d.best_round:
        text.append(f", best so far: round {d.best_round}")
    text.append(f"; all times are UTC, now {_clock(d.now)}")
    if left := _left(d):
        text.append(f"\n{left}")
    if d.outcome:
        text.append("\n")
        text.append(d.outcome, OUTCOME_COLOURS.get(d.outcome, ""))
        text.append(f": {shown(d.reason)}")
    return text


FROM = {"measured": "by what the sites measured before round 1", "rounds": "by the rounds so far"}


def _left(d: StatusDocument) -> str:
    """Say how long the run still takes; the shorter end is where early stopping ends it."""
    found = d.prediction
    if found is None or found.left_low_s is None or found.left_high_s is None:
        return ""
    left = Span(found.left_low_s, found.left_high_s)
    return f"time left: {durations(left)}, {FROM.get(found.left_from, '')}" if left.high else ""


def _took(line: LedgerLine, predicted: PredictionStatus | None) -> str:
    """Return how long a round took, beside what was predicted; empty where it is in progress."""
    if not line.ended_at:
        return ""
    took = duration(line.ended_at - line.begun_at)
    if predicted is None or predicted.round_low_s is None or predicted.round_high_s is None:
        return took
    usual = Span(predicted.round_low_s, predicted.round_high_s)
    if line.round == 1:
        usual += Span(predicted.before_low_s, predicted.before_high_s)
    return f"{took} ({durations(usual)})"


def _moved(line: LedgerLine, d: StatusDocument) -> str:
    """Return the bytes that moved in a round, beside what a usual round was predicted to move; empty: not counted."""
    found = next((size(one.total_bytes) for one in d.traffic if line.ended_at and one.round == line.round), "")
    if not found or d.prediction is None or d.prediction.unmeasured:
        return found
    return f"{found} ({size(sum(one.down_bytes + one.up_bytes for one in d.prediction.sites))})"


def _sites(d: StatusDocument) -> Table:
    table = Table("site", "state", "since", "asked to", "progress", "lease until", title="Sites", title_justify="left")
    for site in d.sites:
        line = f" ({_cut(site.line, site)})" if site.line else ""
        line += f" ({site.set_aside} reports set aside)" if site.set_aside else ""
        line += f" (fedcervix {site.software})" if site.software not in ("", __version__) else ""
        line += _held(site)
        table.add_row(
            site.site,
            Text(f"{_state(site)}{line}", COLOURS.get("silent" if line else site.presence, "")),
            _clock(site.since),
            site.doing if site.presence == "present" else "",
            _progress(site),
            _clock(site.lease_ends_at) if site.presence == "present" and site.lease_ends_at else "",
        )
    return table


def _held(site: SiteStatus) -> str:
    """Describe a site's calls and connections if they are more than an agent needs, or if calls were refused."""
    few = site.calls_open <= CALLS_FEW and site.connections <= CONNECTIONS_FEW and not site.calls_refused
    held = f"{site.calls_open} calls open, {site.calls_refused} refused in the last minute"
    return "" if few else f" ({held}, {site.connections} connections)"


def _state(site: SiteStatus) -> str:
    """A connected site first checks its images; until it is ready, it is not part of the run."""
    return "connected, not ready yet" if site.presence == "absent" and site.connected else site.presence


def _progress(site: SiteStatus) -> Text:
    if not site.stage:
        return Text()
    of = f"/{site.of}" if site.of else ""
    loss = f", loss {site.loss:.3f}" if site.loss else ""
    rate = f", {site.images_per_s:.0f} images/s" if site.images_per_s else ""
    return Text(shown(f"{site.stage} {site.done}{of} {site.unit}{loss}{rate}"))


def _waits(d: StatusDocument) -> RenderableType:
    if not d.waits:
        return Text("waiting for no site")
    table = Table("waiting for", "because", "since", "until", "then", title="Waits", title_justify="left")
    for wait in d.waits:
        until = "it reports" if wait.until is None else _clock(wait.until)
        then = "a silent site loses its lease" if wait.until is None else wait.then
        because = Text(_cut(shown(wait.reason), wait))
        table.add_row(wait.site, because, _clock(wait.since), until, then)
    return table


def _cut(words: str, d: SiteStatus | WaitStatus) -> str:
    """Return the words, with the time since the connection is cut."""
    return words if d.cut_at is None else f"{words} since {_clock(d.cut_at)}"


def _ledger(d: StatusDocument) -> RenderableType:
    if not d.ledger:
        return Text("")
    hidden = d.ledger[-LEDGER_ROWS_MAX:][0].round - 1
    title = "Rounds" + (f" (the last {LEDGER_ROWS_MAX}; {hidden} earlier ones in --json)" if hidden > 0 else "")
    table = Table(
        "round",
        "contributions (images, steps, share)",
        "missing",
        "mean loss",
        "took (predicted)" if d.prediction and d.prediction.round_low_s is not None else "took",
        "moved (predicted)" if d.prediction else "moved",
        "model",
        title=title,
        title_justify="left",
    )
    for line in d.ledger[-LEDGER_ROWS_MAX:]:
        counted = "\n".join(f"{c.site} ({c.images}, {c.steps}, {c.weight:.2f})" for c in line.contributions)
        missing = "\n".join([*(f"{m.site}: {shown(m.reason)}" for m in line.missing), *line.notes])
        loss = "" if line.loss is None else f"{line.loss:.4f}"
        best = " *" if line.round == d.best_round else ""
        table.add_row(
            f"{line.round}{best}",
            counted,
            Text(missing, "yellow"),
            loss,
            _took(line, d.prediction),
            _moved(line, d),
            line.model[:12],
        )
    return table


def _alarms(d: StatusDocument) -> RenderableType:
    """The alarms of the rounds that are shown. Those of one site and kind take one row: the newest of them."""
    found = [(line.round, alarm) for line in d.ledger[-LEDGER_ROWS_MAX:] for alarm in line.alarms]
    if not found:
        return Text("")
    rounds: dict[tuple[str, str], list[int]] = {}
    newest: dict[tuple[str, str], str] = {}
    for number, alarm in found:
        key = (alarm.site, alarm.what)
        rounds.setdefault(key, []).append(number)
        newest[key] = alarm.words
    table = Table("site", "rounds", "what is unusual (in the last of them)", title="Alarms", title_justify="left")
    for (site, what), numbers in [*rounds.items()][:ALARM_ROWS_MAX]:
        table.add_row(
            Text(site), ", ".join(map(str, dict.fromkeys(numbers))), Text(shown(newest[site, what]), "yellow")
        )
    return table


def _notes(d: StatusDocument) -> list[Text]:
    slow = (
        []
        if d.outcome or not d.prediction
        else [Text(s.straggler, "yellow") for s in d.prediction.sites if s.straggler]
    )
    failures = [Text(_failure(f), "red" if _is_open(f) else "yellow") for f in d.failures[-5:]]
    return [*slow, *failures, *([Text(d.trouble, "bold red")] if d.trouble else [])]


def _is_open(f: FailureStatus) -> bool:
    return not f.goes_on and f.mended_at is None


def _failure(f: FailureStatus) -> str:
    how = "had a problem and continues" if f.goes_on else "failed"
    kind = f", {f.kind}" if f.kind else ""
    mended = "" if f.mended_at is None else f"; solved at {_clock(f.mended_at)}"
    at_work = "" if f.stage == "agent" else f" while {f.stage}"
    words = f"{_clock(f.at)} {f.site} {how}{at_work}: {f.hint} ({f.incident}{kind}){mended}"
    return shown(words, FAILURE_CHARS_MAX)


def _clock(at: float) -> str:
    """Return a moment in UTC, as the headline says; with the date if it is not today."""
    today = utc(at, "%Y-%m-%d") == f"{datetime.now(UTC):%Y-%m-%d}"
    return utc(at, "%H:%M:%S" if today else "%Y-%m-%d %H:%M")


def _ago(seconds: float) -> str:
    minutes, rest = divmod(int(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
