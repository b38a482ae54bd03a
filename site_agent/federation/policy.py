"""Does this site's policy allow a plan, and can a welcome be of its federation? Objections in words; none: yes."""

from __future__ import annotations

from collections.abc import Sequence

from fedcervix.core.events import RUN_OF_COORDINATOR
from fedcervix.core.plan import Plan, Recipe
from fedcervix.errors import RemoteError
from fedcervix.transport.codec import Welcome
from fedcervix.trust.pins import Pins, effective
from site_agent.home import Policy, SiteHome

NOBODY = Pins()
"""is pinned"""


def objections(policy: Policy, plan: Plan, site: str, pins: Pins = NOBODY) -> list[str]:
    """Return what the plan asks that the policy does not allow, one readable difference each.

    `pins`: the partners whose keys this site's people have compared.
    """
    found = []
    if site not in plan.sites:
        found.append(f"the plan's sites are {', '.join(plan.sites)}; this site is {site}")
    if plan.mode not in policy.modes:
        found.append(f"the plan's mode is {plan.mode}; [policy] modes allows {', '.join(policy.modes) or 'none'}")
    strangers = [name for name in plan.sites if policy.sites and name not in (*policy.sites, site)]
    if strangers:
        found.append(f"the plan names {', '.join(strangers)}; [policy] sites allows {', '.join(policy.sites)}")
    if plan.rounds_max > policy.rounds_max:
        found.append(f"the plan asks up to {plan.rounds_max} rounds; [policy] rounds_max is {policy.rounds_max}")
    epochs = plan.rounds_max * plan.terms.epochs_per_round
    if epochs > policy.epochs_max:
        found.append(f"the plan asks up to {epochs} epochs; [policy] epochs_max is {policy.epochs_max}")
    if plan.terms.average == "by-images" and plan.terms.share_max > policy.share_max:
        found.append(f"the plan's share_max is {plan.terms.share_max:g}; [policy] share_max is {policy.share_max:g}")
    found += _objections_to_openness(policy, plan)
    unpinned = missing_pins(policy, plan, site, pins)
    found += [f"site {one} is not pinned (site-agent pin {one} FINGERPRINT)" for one in unpinned]
    found += _objections_to_recipe(policy, plan.recipe)
    if policy.plan and policy.plan != plan.digest:
        found.append(f"the plan's digest is {plan.digest}; [policy] plan allows only {policy.plan}")
    return found


def _objections_to_openness(policy: Policy, plan: Plan) -> list[str]:
    """Return what the coordinator would see that the policy keeps from it.

    No plan has both kinds of protection. A site that requires both takes part in rings with the one, and in others with
    the other.
    """
    required = [name for name in ("sealed", "secure_sum") if getattr(policy, name) == "required"]
    if not required or any(getattr(plan.terms, name) for name in required):
        return []
    names = " or ".join(required)
    return [f"the coordinator would see what single sites have trained; [policy] {names} is required"]


def missing_pins(policy: Policy, plan: Plan, site: str, pins: Pins) -> tuple[str, ...]:
    """Return the partners that the policy takes only with a pin, and that have none."""
    if effective(policy.pins, hides_from_coordinator=plan.hides_from_coordinator) != "required":
        return ()
    return pins.unpinned(name for name in plan.sites if name != site)


def way_out(home: SiteHome, unpinned: Sequence[str], against: Sequence[str]) -> tuple[str, str]:
    """Return the likely cause of these objections, and what to do. Pins are this site's own work, the rest is not."""
    if len(unpinned) < len(against):
        cause = f"[policy] in {home.config_file}"
        return cause, "agree with the coordinator's operator, then change the policy or the plan"
    return (
        "[policy] pins asks for a pin of every partner, and nobody here has compared the keys of these sites yet",
        f"telephone {' and '.join(unpinned)}, compare fingerprints, and type {home.command('pin')} NAME FINGERPRINT",
    )


def _objections_to_recipe(policy: Policy, recipe: Recipe) -> list[str]:
    allowed = policy.architectures
    found = []
    if recipe.architecture not in allowed:
        names = ", ".join(allowed) or "none"
        found.append(f"the plan's network is {recipe.architecture}; [policy] architectures allows {names}")
    for key in ("image_px", "width", "batch_images"):
        asked, most = getattr(recipe, key), getattr(policy, f"{key}_max")
        if asked > most:
            found.append(f"the plan's {key} is {asked}; [policy] {key}_max is {most}")
    return found


def check_welcome(welcome: Welcome, federation: str) -> None:
    """Raise RemoteError where a welcome cannot be of this site's federation."""
    if welcome.federation != federation:
        wrong = f"the coordinator speaks for federation {welcome.federation!r}; this site is in {federation!r}"
    elif RUN_OF_COORDINATOR.fullmatch(welcome.run) is None:
        wrong = f"the coordinator named a run {welcome.run!r}; runs are named like 20260101-000000-csfssl-0123abcd"
    else:
        return
    raise RemoteError(
        wrong,
        cause="the program that answered is not this site's coordinator",
        next_step="ask the coordinator's operator",
    )
