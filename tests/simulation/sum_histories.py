"""From one number to one history of secure sums: a federation, and what a malicious coordinator tries with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fedcervix.trust.contexts import RoundContext
from fedcervix.trust.holder_rules import RULES, OwnView, Proposal, SumRules
from fedcervix.trust.sum_lists import SumList
from fedcervix.trust.sum_plan import sites_min
from tests.simulation import sum_adversary as attacks
from tests.simulation.sum_adversary import ATTACKS, Adversary, Scene, honest_round
from tests.simulation.sum_world import Kills, Switches, Terms, sites
from tests.simulation.world import ViolationError

NAMES = ("ada", "bob", "cleo", "dora", "emil", "fay", "gus")


def without(rule: str) -> SumRules:
    """Return the tables of the rules without one of them."""
    tables = ({name: check for name, check in table.items() if name != rule} for table in _tables(RULES))
    return SumRules(*tables)


def _tables(rules: SumRules) -> tuple[dict, dict, dict]:
    return dict(rules.upload), dict(rules.release), dict(rules.close)


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


def draw_scene(dice: random.Random, switches: Switches) -> Scene:
    """Draw a federation with its colluders, who are often holders."""
    colluding = dice.choice([0, 0, 1, 1, 2])
    least = next(k for k in range(3, 9) if sites_min(k, colluding) <= k)
    names = NAMES[: dice.randint(least, len(NAMES))]
    holders = dice.sample(names, min(len(names), colluding + dice.choice([1, 1, 2])))
    preferred = dice.sample(holders, len(holders)) + dice.sample(names, len(names))
    if dice.random() < 0.3:
        preferred = dice.sample(names, len(names))
    colluders = frozenset(list(dict.fromkeys(preferred))[:colluding])
    terms = Terms(names, tuple(sorted(holders)), colluding, dice.choice(["equal", "by-images"]))
    images = {name: dice.randint(10, 40) for name in names}
    homes = {name: home for name, home in sites(names, Kills(), switches).items() if name not in colluders}
    adversary = Adversary(homes, colluders, colluding, switches)
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
