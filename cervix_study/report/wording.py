"""How numbers are written: one way for each kind, in the page and in its Markdown twin."""

from __future__ import annotations

from cervix_study.analysis.comparing import Effect
from cervix_study.report.document import TableCell
from site_agent.classifier.intervals import Estimate
from site_agent.report.answer import WOMEN_FOR_THIRD_DIGIT, percent, signed
from site_agent.report.page import three

NOTHING = "–"
NO_INTERVAL = "no interval"


def measure(name: str, value: float) -> str:
    """Return a measure as its table has it: accuracy in per cent, the others as rates."""
    return percent(value) if name == "accuracy" else three(value)


def often(share: float, women: int) -> str:
    """Return a share as a percentage, with a decimal only where a hundred women or more were tested."""
    return percent(share) if women >= WOMEN_FOR_THIRD_DIGIT else f"{100 * share:.0f} %"


def with_interval(name: str, found: Estimate, *more: str) -> TableCell:
    """Return a measure with its interval below it, and further small print."""
    return TableCell(measure(name, found.value), (interval(name, found), *more))


def interval(name: str, found: Estimate) -> str:
    """Return `0.700 to 0.912`, or that there is no interval."""
    if found.interval is None:
        return NO_INTERVAL
    low, high = (measure(name, value).removesuffix(" %") for value in found.interval)
    return f"{low} to {high}"


def difference(name: str, value: float) -> str:
    """Return a difference: of accuracy in points, of the others as rates."""
    if name != "accuracy":
        return signed(value)
    text = f"{100 * value:+.1f}".replace("-", "−")
    return f"{'0.0' if text[1:] == '0.0' else text} points"


def difference_interval(name: str, found: Estimate) -> str:
    """Return `+0.020 to +0.120`, or that there is no interval."""
    if found.interval is None:
        return NO_INTERVAL
    low, high = (difference(name, value).removesuffix(" points") for value in found.interval)
    return f"{low} to {high}"


def difference_cell(name: str, found: Estimate) -> TableCell:
    """Return a difference with its interval below it."""
    return TableCell(difference(name, found.value), (difference_interval(name, found),))


def p_value(p: float | None) -> str:
    """Return a p value with three decimals; one that is smaller than they can say is bounded."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def verdict_cell(effect: Effect) -> TableCell:
    """Return the verdict, with the corrected p value below it, or why there is none."""
    p = (effect.difference.why,) if effect.corrected is None else (p_value(effect.corrected),)
    return TableCell(effect.verdict, tuple(filter(None, p)), verdict=effect.verdict)


def seconds(value: float) -> str:
    """Return a time as people say it."""
    if value < 90:
        return f"{value:.0f} s"
    if value < 90 * 60:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h"


def size(value: float | None) -> str:
    """Return bytes in units of 1000."""
    if value is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError  # the last unit always returns


def energy(joules: float | None) -> str:
    """Return energy in kWh or Wh."""
    if joules is None:
        return NOTHING
    watt_hours = joules / 3600
    return f"{watt_hours / 1000:.2f} kWh" if watt_hours >= 1000 else f"{watt_hours:.1f} Wh"
