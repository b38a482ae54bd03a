"""Does this site's policy allow a plan? A list of objections in words; empty means yes."""

from __future__ import annotations

from fedcervix.plan import Plan
from site_agent.home import Policy


def objections(policy: Policy, plan: Plan, site: str) -> list[str]:
    """Return what the plan asks that the policy does not allow, one readable difference each."""
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
    if policy.plan and policy.plan != plan.digest:
        found.append(f"the plan's digest is {plan.digest}; [policy] plan allows only {policy.plan}")
    return found
