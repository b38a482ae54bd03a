"""From one number to one history of secure sums: a federation, and what a malicious coordinator tries with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from fedcervix.core.sum_plan import sites_min
from fedcervix.trust.contexts import RoundContext
from fedcervix.trust.holder_rules import RULES, OwnView, Proposal, SumRules
from fedcervix.trust.sum_lists import SumList
from tests.simulation import sum_adversary as attacks
from tests.simulation.sum_adversary import ATTACKS, Adversary, Scene, honest_round
from tests.simulation.sum_coordinator import Coordinator, Round, StalledError, StoppedError
from tests.simulation.sum_world import Kills, Step, Switches, Terms, added, sites, step_of
from tests.simulation.world import ViolationError

Ended = TypeVar("Ended")
NAMES = ("ada", "bob", "cleo", "dora", "emil", "fay", "gus")


def without(rule: str) -> SumRules:
    """Return the tables of the rules without one of them."""
    tables = (RULES.upload, RULES.release, RULES.close)
    return SumRules(*({name: check for name, check in table.items() if name != rule} for table in tables))


def only(act: str, rule: str) -> SumRules:
    """Return the tables of the rules without one rule of one act."""
    table = {name: check for name, check in getattr(RULES, act).items() if name != rule}
    return replace(RULES, **{act: table})


def forgetting_lines() -> SumRules:
    """Return rules by which a holder does not listen to what the lines say of earlier sums."""

    def check(view: OwnView, proposal: Proposal, listed: SumList) -> str:
        silent = tuple(replace(line, before="") for line in listed.reports)
        return RULES.release["H5"](view, proposal, replace(listed, reports=silent))

    return replace(RULES, release={**RULES.release, "H5": check})


def one_attempt(context: RoundContext) -> RoundContext:
    """Return what masks are bound to where they forget the round and its attempt."""
    return replace(context, round=1, base="0" * 64, head="0" * 64, attempt=1, follows="")


BREAKS = {
    "H1": (Switches(rules=without("H1")), attacks.two_lists),
    "H1, uploads": (Switches(rules=only("upload", "H1")), attacks.split_attempts),
    "H1, releases": (Switches(rules=only("release", "H1")), attacks.abandoned_holder),
    "H1, closes": (Switches(rules=only("close", "H1")), attacks.ended_run),
    "H2": (Switches(rules=without("H2")), attacks.small_list),
    "H3": (Switches(rules=without("H3"), pins_count=False), attacks.invented_sites),
    "H3, weights": (Switches(own_weights=False), attacks.forged_weights),
    "H4": (Switches(rules=without("H4")), attacks.outweigh),
    "H5": (Switches(rules=without("H5")), attacks.second_run),
    "H5, lines": (Switches(rules=forgetting_lines()), attacks.newcomer_holds),
    "H5, uploads": (Switches(rules=only("upload", "H5")), attacks.newcomer_holds),
    "H6": (Switches(rules=without("H6")), attacks.two_bases),
    "H7": (Switches(rules=without("H7"), backup_keeps_secrets=True), attacks.restored_homes),
    "H7, unmarked": (Switches(marks_restored=False), attacks.restored_homes),
    "releases": (Switches(releases_count=False), attacks.false_list),
    "masks": (Switches(masks_of=one_attempt, commit_counts=False), honest_round),
}
"""one planted mistake each, and what finds it soonest"""


@dataclass(frozen=True)
class SumHistory:
    """What came of one history."""

    terms: Terms
    colluders: frozenset[str]
    attacks: tuple[str, ...]
    sums: int


def draw_terms(dice: random.Random) -> Terms:
    """Draw a federation of 3 to 7 sites, with c + 1 holders or c + 2."""
    colluding = dice.choice([0, 0, 1, 1, 2])
    least = next(k for k in range(3, 9) if sites_min(k, colluding) <= k)
    names = NAMES[: dice.randint(least, len(NAMES))]
    holders = dice.sample(names, min(len(names), colluding + dice.choice([1, 1, 2])))
    return Terms(names, tuple(sorted(holders)), colluding, dice.choice(["equal", "by-images"]))


def draw_scene(dice: random.Random, switches: Switches) -> Scene:
    """Draw a federation with its colluders, who are often holders."""
    terms = draw_terms(dice)
    names, holders = terms.sites, terms.holders
    preferred = dice.sample(holders, len(holders)) + dice.sample(names, len(names))
    if dice.random() < 0.3:
        preferred = dice.sample(names, len(names))
    colluders = frozenset(list(dict.fromkeys(preferred))[: terms.colluders])
    images = {name: dice.randint(10, 40) for name in names}
    homes = {name: home for name, home in sites(names, Kills(), switches).items() if name not in colluders}
    adversary = Adversary(homes, colluders, terms.colluders, switches)
    scene = Scene(dice, adversary, terms, images)
    adversary.join(scene.run, adversary.begin(scene.run, terms, images), names)
    return scene


def sum_history(
    seed: int, switches: Switches | None = None, among: Sequence[Callable[[Scene], None]] = ATTACKS
) -> SumHistory:
    """Let the history of this number happen. Raises ViolationError where the adversary gets what it must not."""
    dice = random.Random(seed)
    scene = draw_scene(dice, switches or Switches())
    for _ in range(dice.choice([0, 0, 1, 2])):
        honest_round(scene)
    tried = [dice.choice(among) for _ in range(dice.randint(1, 3))]
    for attack in tried:
        attack(scene)
    names = tuple(attack.__name__ for attack in tried)
    for violation in scene.adversary.violations():
        raise ViolationError(f"{violation} (sums, seed {seed}, {', '.join(names)}, c = {scene.terms.colluders})")
    return SumHistory(scene.terms, scene.adversary.colluders, names, len(scene.adversary.sums()))


def honest_history(seed: int) -> int:
    """Let an honest coordinator run three rounds through kills, absences and a lost holder; return the number of kills.

    Raises ViolationError where a sum is not that of the steps of its sites.
    """
    dice = random.Random(f"honest {seed}")
    terms = draw_terms(dice)
    kills = Kills({(dice.randrange(60), dice.random() < 0.5) for _ in range(dice.choice([0, 2, 8]))})
    images = {name: dice.randint(10, 40) for name in terms.sites}
    coordinator = Coordinator(sites(terms.sites, kills), "run", terms, images.__getitem__, kills)
    coordinator.stops_at = {dice.randrange(80) for _ in range(dice.choice([0, 2, 8]))}
    until_it_ends(coordinator, coordinator.begin)
    spare = len(terms.sites) - sites_min(len(terms.sites), terms.colluders)
    if spare and len(terms.holders) == terms.colluders + 2 and dice.random() < 0.5:
        spare, coordinator.lost = spare - 1, {dice.choice(terms.holders)}
    weights = {site: images[site] if terms.average == "by-images" else 1 for site in terms.sites}
    for number in (1, 2, 3):
        there = [site for site in terms.sites if site not in coordinator.lost]
        coordinator.away = {*dice.sample(there, dice.randint(0, min(spare, len(there)))), *coordinator.lost}
        disk, base = Round(), coordinator.base()
        total, listed = until_it_ends(coordinator, partial(coordinator.round, disk))
        attempt = len(disk.earlier) + 1
        steps = (Step(site, "run", number, attempt, base, weights[site]) for site in listed.sites)
        if total != added(map(step_of, steps)):
            raise ViolationError(f"the sum of round {number} is another one (honest sums, seed {seed})")
    return kills.done


def until_it_ends(coordinator: Coordinator, what: Callable[[], Ended]) -> Ended:
    """Start the coordinator's process again until it is done; holders that are waited for return."""
    while True:
        try:
            return what()
        except StoppedError:
            continue
        except StalledError:
            coordinator.away = set(coordinator.lost)
