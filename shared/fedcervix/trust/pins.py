"""Pins: which key each partner must have, by what people have told each other outside the system.

The coordinator is also the authority that certifies keys. So a certificate proves only that the coordinator's authority
has issued it; a pin proves that two people have compared.

Rules
1. A pin is the fingerprint of a key and not of a certificate: a renewed certificate of the same key fits.
2. A pin is made and changed by a person alone. A new key that the old one has signed may be a reason to telephone, and
   is never followed by itself: a thief of the old key would keep the name for ever.
3. Within a run a name keeps its key (`check_unchanged`), whether it is pinned or not. Only a pin of exactly the new key
   lets the run go on with it: then a person has compared.
4. A pin that was changed is kept, with until when it held: the ledgers of earlier runs name the key of then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fedcervix.errors import IdentityError

if TYPE_CHECKING:  # with `cryptography`: most commands of a site need the names below and no key
    from fedcervix.trust.fingerprints import Fingerprint

PinSetting = Literal["auto", "required", "known"]
"""of `[policy] pins`"""
PinRule = Literal["required", "known"]
"""required: every partner must be pinned. known: a partner without a pin is accepted, and that is said"""


def effective(setting: PinSetting, *, hides_from_coordinator: bool) -> PinRule:
    """Return the rule that holds for a plan.

    `hides_from_coordinator`: the plan keeps something from the coordinator (secure sums, sealed models). Without pins
    the coordinator could invent the partners that are to keep it.
    """
    if setting == "auto":
        return "required" if hides_from_coordinator else "known"
    return setting


@dataclass(frozen=True, slots=True)
class FormerPin:
    """A pin that was changed or taken back: it held until then."""

    key: Fingerprint
    until: float
    """Unix seconds"""


@dataclass(frozen=True, slots=True)
class Pins:
    """The fingerprints that a site's people have compared, by the name of the partner."""

    keys: Mapping[str, Fingerprint] = field(default_factory=dict)
    command: str = "site-agent pin"
    """that makes a pin, as an error names it"""
    before: Mapping[str, Sequence[FormerPin]] = field(default_factory=dict)
    """pins of earlier, oldest first"""

    def unpinned(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return which of these names have no pin."""
        return tuple(name for name in names if name not in self.keys)

    def fits(self, name: str, certified: Sequence[Fingerprint], begun_at: float) -> bool:
        """Say whether the keys that were certified for a name in a run fit its pin: the newest one is the pinned one.

        `certified`: oldest first. Where the partner has joined again since, and was pinned again, it is the one that
        was pinned when the run began; but once the key that is pinned now was certified, no earlier one comes back.
        """
        pinned, newest = self.keys.get(name), certified[-1]
        if pinned is None or pinned == newest:
            return True
        held = [pin.key for pin in self.before.get(name, ()) if pin.until > begun_at]
        return newest in held and pinned not in certified

    def check(self, name: str, found: Fingerprint) -> None:
        """Raise IdentityError where `name` is pinned to another key than the one found."""
        pinned = self.keys.get(name, found)
        if found != pinned:
            raise self._another_key(name, found, "pinned", pinned)

    def check_unchanged(self, name: str, before: Fingerprint, found: Fingerprint) -> None:
        """Raise IdentityError where `name` had another key earlier in this run; a pin of the new one allows it."""
        if found not in (before, self.keys.get(name)):
            raise self._another_key(name, found, "earlier in this run", before)

    def _another_key(self, name: str, found: Fingerprint, when: str, expected: Fingerprint) -> IdentityError:
        groups = expected.differing_groups(found)
        typed = f"; only group {groups[0]} differs, so the pin may be mistyped" if len(groups) == 1 else ""
        forms = (f"{when}:", expected.groups, "now:", *found.lines())
        return IdentityError(
            "\n".join((f"site {name} has another key than the one {when}; this site sends nothing", *forms)),
            cause=f"site {name} has lost its key and joined again, or somebody else has taken its place: the "
            f"coordinator, or a person who got an invitation of that name{typed}",
            next_step=f"telephone site {name} on a number that you know, and compare the words above with those that "
            f"`site-agent identity` prints there. Only if they are equal: {self.command} {name} {found.hex}; "
            "otherwise tell the coordinator's operator",
        )
