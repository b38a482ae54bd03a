"""What follows from what an adversary saw, as linear algebra over the integers modulo 2^32.

Everything it sees of a secure sum is a row: unknown numbers, each with a factor. Masks are unknown and independent, so
a combination of rows tells something exactly when no mask is left in it. `decodable` returns all such combinations, as
rows that generate them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from fractions import Fraction

BITS = 32
MODULUS = 2**BITS

Row = dict[Hashable, int]


def combined(row: Row, factor: int, other: Row) -> Row:
    """Return row + factor * other."""
    found = dict(row)
    for unknown, number in other.items():
        if left := (found.pop(unknown, 0) + factor * number) % MODULUS:
            found[unknown] = left
    return found


def valuation(number: int) -> int:
    """Return how often 2 divides a number that is not 0."""
    return (number & -number).bit_length() - 1


def eliminated(rows: Iterable[Row], unknowns: Iterable[Hashable]) -> tuple[list[Row], dict[Hashable, Row]]:
    """Return (rows that generate all combinations without these unknowns, a pivot row by unknown).

    The pivot of an unknown is a row whose number there has the fewest factors 2, so it divides those of all others. A
    multiple of the pivot that is 0 there is kept as well: an even mask hides all but the lowest bits.
    """
    active = [row for row in rows if row]
    pivots: dict[Hashable, Row] = {}
    for unknown in unknowns:
        holding = [row for row in active if unknown in row]
        if not holding:
            continue
        active = [row for row in active if unknown not in row]
        pivot = min(holding, key=lambda row: valuation(row[unknown]))
        twos = valuation(pivot[unknown])
        inverse = pow(pivot[unknown] >> twos, -1, MODULUS)
        pivots[unknown] = pivot
        for row in holding:
            if row is not pivot:
                active.append(combined(row, -(row[unknown] >> twos) * inverse, pivot))
        if twos:
            active.append(combined({}, 2 ** (BITS - twos), pivot))
        active = [row for row in active if row]
    return active, pivots


def unknowns_of(rows: Iterable[Row]) -> list[Hashable]:
    """Return all unknowns of rows, in the order in which they appear."""
    return list(dict.fromkeys(unknown for row in rows for unknown in row))


def decodable(rows: Sequence[Row], is_mask: Callable[[Hashable], bool]) -> list[Row]:
    """Return rows that generate everything that can be known of the unknowns that are no masks."""
    found, _ = eliminated(rows, [unknown for unknown in unknowns_of(rows) if is_mask(unknown)])
    return reduced(found)


def reduced(rows: Sequence[Row]) -> list[Row]:
    """Return as few rows as generate the same; what can be taken out of a row by another one is taken out.

    The first number of each is a power of 2, mostly 1; the others lie between -2^31 and 2^31.
    """
    _, pivots = eliminated(rows, unknowns_of(rows))
    found: dict[Hashable, Row] = {}
    for first, pivot in reversed(pivots.items()):
        odd = pivot[first] >> valuation(pivot[first])
        row = combined({}, pow(odd, -1, MODULUS), pivot)
        for unknown, other in found.items():
            row = combined(row, -(row.get(unknown, 0) // other[unknown]), other)
        found[first] = row
    return [{unknown: signed(number) for unknown, number in row.items()} for row in found.values()]


def signed(number: int) -> int:
    """Return a number modulo 2^32 as one between -2^31 and 2^31."""
    return number - MODULUS if number >= MODULUS // 2 else number


def projected(row: Row, names: Callable[[Hashable], tuple[Hashable, int]]) -> Row:
    """Return a row in other unknowns: each unknown is a factor times one of those. The numbers are integers."""
    found: Row = {}
    for unknown, number in row.items():
        name, factor = names(unknown)
        found[name] = found.get(name, 0) + number * factor
    return {name: number for name, number in found.items() if number}


def rational_basis(rows: Iterable[Row]) -> list[dict[Hashable, Fraction]]:
    """Return rows that generate the same over the rational numbers, as few as there can be."""
    basis: dict[Hashable, dict[Hashable, Fraction]] = {}
    for row in rows:
        left = {unknown: Fraction(number) for unknown, number in row.items()}
        for first, other in basis.items():
            if factor := left.get(first, Fraction()):
                for unknown, number in other.items():
                    left[unknown] = left.get(unknown, Fraction()) - factor * number
        if first := next((unknown for unknown, number in left.items() if number), None):
            basis[first] = {unknown: number / left[first] for unknown, number in left.items() if number}
    return list(basis.values())
