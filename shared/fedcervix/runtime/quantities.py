"""Durations and sizes as a person reads them at a glance."""

from __future__ import annotations

from fedcervix.core.pace import Span

UNITS_S = ((86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (0.001, "ms"))


def duration(seconds: float) -> str:
    """Return a duration in a unit of which it has at least two, if there is one."""
    unit_s, unit = _unit(seconds)
    return f"{_digits(seconds / unit_s)} {unit}"


def durations(span: Span) -> str:
    """Return a range of durations: `12 to 15 min`, or `12 min to 2.4 h` where the lower end has less than one unit."""
    unit_s, unit = _unit(span.high)
    if 0 < span.low < unit_s and _unit(span.low) != (unit_s, unit):
        return f"{duration(span.low)} to {duration(span.high)}"
    low, high = _digits(span.low / unit_s), _digits(span.high / unit_s)
    return f"{low} to {high} {unit}" if low != high else f"about {high} {unit}"


def size(count_bytes: float) -> str:
    """Return a number of bytes in KiB, MiB or GiB."""
    if count_bytes >= 2**29:
        return f"{count_bytes / 2**30:.1f} GiB"
    return f"{count_bytes / 2**20:.0f} MiB" if count_bytes >= 2**20 else f"{count_bytes / 2**10:.0f} KiB"


def rates(span: Span) -> str:
    """Return a range of bytes a second as Mbit/s, in which lines are sold."""
    low, high = (_digits(8 * end / 1e6) for end in (span.low, span.high))
    return f"{low} to {high} Mbit/s" if low != high else f"about {high} Mbit/s"


def _unit(seconds: float) -> tuple[float, str]:
    """Seconds below two minutes, minutes below two hours, and so on; milliseconds below a tenth of a second."""
    for unit_s, unit in UNITS_S:
        least = {"s": 0.1, "ms": 0.0}.get(unit, 2 * unit_s)
        if seconds >= least:
            return unit_s, unit
    return UNITS_S[-1]


def _digits(number: float) -> str:
    """Two digits at least: 0.84, 3.4, 12, 140."""
    return f"{number:.0f}" if number >= 10 or number == 0 else f"{number:.1f}" if number >= 1 else f"{number:.2g}"
