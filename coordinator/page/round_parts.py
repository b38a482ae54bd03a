"""The rounds of a run as the page's tables and charts need them: short lists of numbers by site.

Rules
1. A round that has ended does not change: its part is made once.
2. The newest rounds have numbers of each site, `CELLS_MAX` in all; earlier ones only their mean loss. So what a browser
   is sent has a bound.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedcervix.page.board import Part
from fedcervix.runtime.record import ContributionLine, LedgerLine, ScoreLine

GAUGES = ("effective_rank", "uniformity")
"""see `site_agent.training.collapse_metrics`"""
COLUMNS = ("score", *GAUGES, "loss", "images")
"""of a site in a round, in this order; null where it is not known. Only what the page draws: a column is 12,800 numbers
at 64 sites and 200 rounds, here and in each browser"""
DIGITS = 5
CELLS_MAX = 64 * 200
DIGEST_CHARS = 12

Row = list[float | int | None]


def short(value: float | None) -> float | None:
    """Return a number with as many digits as a chart can show."""
    return None if value is None else float(f"{value:.{DIGITS}g}")


class RoundParts:
    """Makes the part; remembers what it made of rounds that have ended."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[LedgerLine, Part]] = {}

    def of(self, ledger: Sequence[LedgerLine], sites: int) -> Part:
        """Return {number of the round: its part}; `sites`: how many the run has."""
        detailed = max(1, CELLS_MAX // max(1, sites))
        first = len(ledger) - detailed
        return {str(line.round): self._part(line, brief=place < first) for place, line in enumerate(ledger)}

    def _part(self, line: LedgerLine, *, brief: bool) -> Part:
        known = self._made.get(line.round)
        if known is not None and known[0] is line and ("sites" in known[1]) != brief:
            return known[1]
        part = _whole(line) if brief else {**_whole(line), **_by_site(line)}
        self._made[line.round] = (line, part)
        return part


def _whole(line: LedgerLine) -> dict[str, object]:
    found = {
        "begun": round(line.begun_at, 1),
        "ended": None if line.ended_at is None else round(line.ended_at, 1),
        "loss": short(line.loss),
        "model": line.model[:DIGEST_CHARS],
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def _by_site(line: LedgerLine) -> dict[str, object]:
    scores = {score.site: score for score in line.scores}
    given = {one.site: one for one in line.contributions}
    names = dict.fromkeys((*given, *scores))
    rest = {
        "missing": {one.site: one.reason for one in line.missing},
        "notes": list(line.notes),
        "alarms": [[one.site, one.what, one.words] for one in line.alarms],
        "dropped": [one.site for one in line.dropped],
    }
    rows: dict[str, object] = {name: _row(given.get(name), scores.get(name)) for name in names}
    return {"sites": rows, **{name: value for name, value in rest.items() if value}}


def _row(given: ContributionLine | None, score: ScoreLine | None) -> Row:
    gauges = score.gauges if score else {}
    measured = [None if score is None else score.loss, *(gauges.get(name) for name in GAUGES)]
    trained: Row = [None, None] if given is None else [short(given.loss), given.images]
    return [*map(short, measured), *trained]
