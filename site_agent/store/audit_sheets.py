"""What an attacker would learn from an update about who was trained on: the sheet of one audit, as values.

An attacker who holds the update and one image asks: was this woman trained on? The attacks are tried on the site's own
women. A guess is right half of the time: an AUC of .5. Women of the training part stand against women of the test part.
These trained nothing and chose nothing, neither a round nor an epoch nor a threshold.

The interval of each decisive attack has the level 1 - .05 / their number, so that all of them hold together in 95 of
100 audits: the strongest of five attacks is not believed for being the luckiest (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fedcervix.core.bounds import Within, check_values
from fedcervix.core.plan import check

WOMEN_MIN = 100
"""of each side; with fewer, the share found at 1 % false alarms rests on less than one woman"""
FALSE_ALARMS = 0.01

DECISIVE: Mapping[str, str] = {
    "views": "views of one image are alike",
    "views-gained": "views of one image became more alike in this round",
    "loss": "the loss is low",
    "loss-gained": "the loss fell in this round",
    "alignment": "the update goes the way that this woman's images ask for",
}
"""attack on the update -> what it takes as the sign of a woman who was trained on"""
BEFORE: Mapping[str, str] = {
    "base-views": "before this round: views of one image are alike",
    "base-loss": "before this round: the loss is low",
}
"""the same of the model that the round began with: what was known already"""

Rate = Annotated[float, Within(0, 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """How well one attack tells training women from others."""

    name: str
    auc: Rate
    auc_low: Rate
    auc_high: Rate
    found: Rate
    """share of the training women who are found where 1 % of the others are taken for such"""
    found_low: Rate
    found_high: Rate

    def __post_init__(self) -> None:
        check_values(self)
        check(self.name in DECISIVE or self.name in BEFORE, f"there is no attack {self.name!r}")

    @property
    def words(self) -> str:
        """What it takes as the sign of a woman who was trained on."""
        return {**DECISIVE, **BEFORE}[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSheet:
    """The audit of one update."""

    round: int
    base: str
    """digest of the model that the round began with"""
    update: str
    """digest"""
    training_women: int
    other_women: int
    images: int
    """of both"""
    attacks: tuple[Attack, ...] = ()
    """none where there are too few women"""

    def __post_init__(self) -> None:
        check(bool(self.attacks) == (self.women >= WOMEN_MIN), "attacks are tried where there are enough women")

    @property
    def women(self) -> int:
        """How many the smaller side has."""
        return min(self.training_women, self.other_women)

    @property
    def strongest(self) -> Attack | None:
        """The decisive attack that surely tells most; None where nobody can tell."""
        return max((one for one in self.attacks if one.name in DECISIVE), key=lambda one: one.auc_low, default=None)


def verdict(sheet: AuditSheet) -> str:
    """Return what an audit says, in a sentence."""
    strongest = sheet.strongest
    if strongest is None:
        return (
            f"cannot tell: {sheet.training_women} training women and {sheet.other_women} test women have labelled "
            f"images; an audit needs {WOMEN_MIN} of each"
        )
    between = f"AUC {strongest.auc:.2f}, between {strongest.auc_low:.2f} and {strongest.auc_high:.2f}"
    if strongest.auc_low <= 0.5:
        return f"no attack tells training women from others (strongest: {between}; .5 is guessing)"
    return (
        f"training women can be told from others: {strongest.words} ({between}; .5 is guessing). Where 1 % of other "
        f"women are taken for them, {strongest.found:.0%} of them are found"
    )


def held_back(sheet: AuditSheet, auc_max: float) -> str:
    """Return why an update must not leave, in a sentence; empty where it may."""
    strongest = sheet.strongest
    if strongest is None or strongest.auc_low <= auc_max:
        return ""
    return (
        f"the audit of the update of round {sheet.round} finds an AUC of at least {strongest.auc_low:.2f} "
        f"({strongest.words}); [policy] audit_max_auc is {auc_max:g}"
    )
