"""The modes of a federation as a table: who may train, what is needed, what follows.

Rounds, plans and screens ask these rules, and never the name of a mode. What the plan's terms change in them stands in
`Plan.mode_rules` and `Plan.averages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["csfssl", "ppfssl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeRules:
    """What a mode decides."""

    in_turns: bool
    """who may train: one site at a time, in the roster's order, from the model of the site before (a *hop*); the site
    whose turn it is holds the model. Else all sites at once, from the model that the round begins with"""
    needs_all: bool
    """what is needed, where the plan sets no quorum: every site that is not revoked. Else one site"""
    goes_on_from_average: bool
    """what follows: training goes on from the average of the round's updates. Else from the newest update"""


MODES: Mapping[Mode, ModeRules] = {
    "csfssl": ModeRules(in_turns=False, needs_all=True, goes_on_from_average=True),
    "ppfssl": ModeRules(in_turns=True, needs_all=False, goes_on_from_average=False),
}


def title_of(mode: Mode, sites: Sequence[str]) -> str:
    """Return the name of a run's model in tables: CSFSSL, or PPFSSL_NHS where the site nhs has the first turn."""
    return f"{mode}_{sites[0]}".upper() if MODES[mode].in_turns else mode.upper()
