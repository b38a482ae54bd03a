"""Alarms of models that could not be used: whose update spoils it, and who reports this while others can use it."""

from __future__ import annotations

from collections.abc import Iterator

from fedcervix.core.alarms import WORDS_CHARS_MAX, Alarm
from fedcervix.core.rounds.state import Round, Run


def spoilt(_run: Run, round_: Round) -> Iterator[Alarm]:
    """With a site's update the model could not be used."""
    for missing in round_.missing:
        if missing.suspected:
            yield Alarm(missing.site, round_.number, "unusable", missing.reason[:WORDS_CHARS_MAX])


def contradicted(_run: Run, round_: Round) -> Iterator[Alarm]:
    """A site reported that it cannot use the round's model, but most others could."""
    for said in round_.unusable if round_.ended_at and round_.scores else ():
        words = "it reported that it cannot use the round's model, but the other sites can"
        yield Alarm(said.site, round_.number, "contradicted", words)
