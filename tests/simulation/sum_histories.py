"""From one number to one history of secure sums: a federation, and what a malicious coordinator tries with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedcervix.trust.holder_rules import RULES, SumRules, sites_min
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


BREAKS = {
    "H1": Switches(rules=without("H1")),
    "H2": Switches(rules=without("H2")),
    "H3": Switches(rules=without("H3"), pins_count=False),
    "H3, weights": Switches(own_weights=False),
    "H4": Switches(rules=without("H4")),
    "H5": Switches(rules=without("H5")),
    "H6": Switches(rules=without("H6")),
    "H7": Switches(rules=without("H7"), backup_keeps_secrets=True),
    "H7, unmarked": Switches(marks_restored=False),
}
"""one planted mistake each"""


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
    seed: int, switches: Switches | None = None, attacks: Sequence[Callable[[Scene], None]] = ATTACKS
) -> SumHistory:
    """Let the history of this number happen. Raises ViolationError where the adversary gets what it must not."""
    dice = random.Random(seed)
    scene = draw_scene(dice, switches or Switches())
    for _ in range(dice.choice([0, 0, 1, 2])):
        honest_round(scene)
    tried = [dice.choice(attacks) for _ in range(dice.randint(1, 3))]
    for attack in tried:
        attack(scene)
    names = tuple(attack.__name__ for attack in tried)
    for violation in scene.adversary.violations():
        raise ViolationError(f"{violation} (sums, seed {seed}, {', '.join(names)}, c = {scene.terms.colluders})")
    return SumHistory(scene.terms, scene.adversary.colluders, names, len(scene.adversary.sums()))
