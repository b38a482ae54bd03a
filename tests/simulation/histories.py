"""From one number to one history: which federation, and how bad a world it lives in."""

from __future__ import annotations

import random
from dataclasses import replace

from fedcervix.core.modes import MODES
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.state import Outcome
from tests.simulation.oracle import digest_of, scorers, undisturbed
from tests.simulation.world import Faults, History, Rules, ViolationError, simulate

NAMES = ("ada", "bob", "cleo", "dora", "emil", "fay", "gus", "hal", "ida")
ALONE = Recipe(epochs_max=1000)


def draw_plan(dice: random.Random) -> Plan:
    """Draw a federation of 2 to 9 sites, mostly few."""
    sites = NAMES[: min(9, 2 + int(dice.expovariate(0.7)))]
    terms = Terms(
        rounds=dice.choice([1, 2, 2, 3, 4]),
        patience_rounds=dice.choice([1, 2, 5]),
        average=dice.choice(["equal", "by-images"]),
        ring_result=dice.choice(["last", "cycle-average"]),
        quorum=dice.choice([None, None, dice.randint(1, len(sites))]),
        lease_s=dice.choice([20.0, 60.0]),
        grace_s=dice.choice([0.0, 120.0]),
        give_up_s=4 * 3600.0,
        seed=dice.randrange(1000),
    )
    return Plan(mode=dice.choice(list(MODES)), sites=sites, profile="paper", terms=terms, recipe=ALONE)


def draw_momentum(dice: random.Random, plan: Plan) -> Plan:
    """Give a third of the averaging federations server momentum."""
    share = dice.choice([0.0, 0.0, 0.5])
    return plan if plan.mode_rules.in_turns else replace(plan, terms=replace(plan.terms, server_momentum=share))


def draw_compression(dice: random.Random, plan: Plan) -> Plan:
    """Let half of the federations save bytes."""
    compression = dice.choice(["none", "none", "bfloat16", "int8"])
    return replace(plan, terms=replace(plan.terms, compression=compression))


def draw_faults(dice: random.Random, plan: Plan) -> Faults:
    """Draw a world; each kind of fault is absent from half of the histories."""

    def rate(most: float) -> float:
        return dice.choice([0.0, dice.uniform(0, most)])

    if dice.random() < 0.1:
        return Faults(delay_s=dice.choice([0.01, 1.0]))
    faults = Faults(
        delay_s=dice.choice([0.01, 1.0]),
        loss=rate(0.3),
        double=rate(0.3),
        straggle=rate(0.2),
        cuts_per_hour=rate(30),
        coordinator_crash=rate(0.2),
        site_crashes_per_hour=rate(20),
        freezes_per_hour=rate(30),
        work_failure=rate(0.1),
    )
    if dice.random() < 0.3:
        gone = dice.sample(plan.sites, dice.randint(1, len(plan.sites)))
        faults = replace(faults, lost=tuple((site, dice.choice([0.0, dice.uniform(1, 1000)])) for site in gone))
    if dice.random() < 0.1:
        faults = replace(faults, revoked=((dice.choice(plan.sites), dice.uniform(1, 1000)),))
    return faults


def draw_twins(dice: random.Random, faults: Faults) -> Faults:
    """Let somebody start second agents in a third of the worlds."""
    return replace(faults, twins_per_hour=dice.choice([0.0, 0.0, dice.uniform(0, 20)]))


def draw_culprits(dice: random.Random, plan: Plan, faults: Faults) -> Faults:
    """Let a site in a fifth of the worlds spoil the model, sometimes two, and one in some say so of a sound one.

    Half of the time the operator revokes one of them.
    """
    if dice.random() < 0.8:
        return faults
    names = dice.sample(plan.sites, min(len(plan.sites), dice.choice([1, 1, 2])))
    faults = replace(faults, culprits=tuple(names) if dice.random() < 0.8 else ())
    if dice.random() < 0.4:
        faults = replace(faults, liars=(dice.choice(plan.sites),))
    if faults.culprits and dice.random() < 0.5:
        faults = replace(faults, revoked=(*faults.revoked, (names[0], dice.uniform(1, 1000))))
    return faults


def draw_sealed(dice: random.Random, plan: Plan) -> Plan:
    """Let half of the rings travel under seal; the coordinator averages nothing then, nor does it begin them."""
    if not plan.mode_rules.in_turns or dice.random() < 0.5:
        return plan
    packing = "none" if plan.terms.compression == "int8" else plan.terms.compression
    return replace(plan, terms=replace(plan.terms, sealed=True, ring_result="last", compression=packing))


def faults_in(faults: Faults) -> bool:
    return faults != Faults(delay_s=faults.delay_s)


def history(seed: int, rules: Rules | None = None) -> History:
    """Let the history of this number happen. Raises ViolationError, which names the command that shows it again."""
    dice = random.Random(seed)
    plan = draw_plan(dice)
    faults = draw_faults(dice, plan)
    base = dice.choice(["", digest_of("a model given by the operator")])
    # Drawn last: a number stands for the same plan and faults as without them.
    plan = draw_compression(dice, draw_momentum(dice, plan))
    if plan.terms.compression != "int8":  # a copied home folder carries on what its own agent rounded away, no other's
        faults = draw_twins(dice, faults)
    faults = draw_culprits(dice, plan, faults)
    plan = draw_sealed(dice, plan)
    base = "" if plan.terms.sealed else base
    try:
        found = simulate(plan, faults, seed, base=base, rules=rules)
        _check_end(found)
    except ViolationError as violation:
        violation.add_note(f"again: python -m tests.simulation.soak --seed {seed} --histories 1 --trace")
        raise
    return found


def _check_end(found: History) -> None:
    """Where every fault was transient and nobody may be left out, the run ends as if nothing had happened."""
    run, transient = found.run, not (found.faults.lost or found.faults.revoked)
    if found.faults.culprits or found.faults.liars:
        return
    if transient and run.outcome is Outcome.ABORTED:
        raise ViolationError(f"every fault was transient, but the run was aborted: {run.reason}")
    everyone = found.plan.terms.quorum in (None, len(found.plan.sites))
    if everyone and not faults_in(found.faults) and run.outcome is not Outcome.OK:
        raise ViolationError(f"nothing went wrong, but the run ended {run.outcome}: {run.reason}")
    counting = [round_ for round_ in run.rounds if round_.contributions]  # a quorum may be gone with a revoked site
    left_out = {missing.site for round_ in counting for missing in round_.missing}
    if everyone and found.plan.mode_rules.needs_all and not left_out <= {site for site, _ in found.faults.revoked}:
        raise ViolationError(f"every site is needed; without having been revoked, left out were: {left_out}")
    scored = all({score.site for score in round_.scores} == {*scorers(found.plan)} for round_ in run.rounds)
    if run.outcome is Outcome.OK and scored:
        result = (run.best.candidate, run.best_round, len(run.rounds))
        if result != undisturbed(found.plan, found.base):
            raise ViolationError(f"result {result}; undisturbed it is {undisturbed(found.plan, found.base)}")
