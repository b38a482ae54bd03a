"""What must hold when a federation is over, whatever was done to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.e2e.accounted import unaccounted
from tests.e2e.loopback import Federation


@dataclass(frozen=True, slots=True)
class Right:
    """What an undisturbed federation of the same plan gave."""

    rounds: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """of each round its model, and (site, update) in order; "" for a masked update, which is another in each run"""
    result: str


def found(federation: Federation) -> Right:
    """Return what a federation that is over gave."""
    record, is_masked = federation.record(), bool(federation.terms.get("secure_sum"))
    return Right(tuple(_round(line, is_masked=is_masked) for line in record["ledger"]), federation.result())


def _round(line: dict[str, Any], *, is_masked: bool) -> tuple[str, tuple[tuple[str, str], ...]]:
    return line["model"], tuple((one["site"], "" if is_masked else one["digest"]) for one in line["contributions"])


def violations(federation: Federation, right: Right) -> Iterator[str]:
    """Yield in words what does not hold."""
    record = federation.record()
    if record["outcome"] != "OK":
        yield f"the run ended {record['outcome']}: {record['reason']}"
    for line in record["ledger"]:
        if line["missing"]:
            yield f"round {line['round']} was done without {line['missing']}"
    gave = found(federation)
    if gave != right:
        yield f"it gave {gave}\nundisturbed it is {right}"
    for site in federation.sites:
        if federation.adopted(site) != [right.result]:
            yield f"{site} holds {federation.adopted(site)}, not the result {right.result}"
        yield from unaccounted(federation, record["run"], site)
    yield from _damaged(federation)
    yield from (f"{p.name} printed a traceback:\n{p.text[-3000:]}" for p in federation.processes if _traced(p.text))
    if left := federation.leftovers():
        yield f"still running: {left}"


def _traced(text: str) -> bool:
    return "Traceback" in text


def _damaged(federation: Federation) -> Iterator[str]:
    """Yield models that are not what their name says."""
    for home in (federation.home, *map(federation.site, federation.sites)):
        for file in home.blobs.glob("*.safetensors"):
            if hashlib.sha256(file.read_bytes()).hexdigest() != file.stem:
                yield f"{file} is not what its name says"
