"""An alarm of secure sums: the lengths of steps that the sites have signed cannot all be true.

The coordinator does not see a masked update. Each site signs how long its step is, and the coordinator knows the
average step. An average is at most as long as its parts together: |average| <= sum of a_k |d_k|, where a_k is the
weight of a site and |d_k| the length of its step. Where it is longer, somebody made a longer step than was signed.
Who it was cannot be known, so the alarm names all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedcervix.core.alarms import Alarm
from fedcervix.core.rounds.state import Round, Run

KIND = "stated-length"
ROUNDING = 1.01
"""lengths are signed with three digits"""


def stated_lengths(run: Run, round_: Round) -> Iterator[Alarm]:
    """Yield an alarm for each site of a sum that is longer than the lengths that its sites have signed."""
    lengths = {update.site: update.masked.norm for update in round_.contributions if update.masked}
    if not round_.summed_norm or not lengths:
        return
    by_images = run.plan.terms.average == "by-images"
    weights = {opening.site: opening.images if by_images else 1 for opening in run.openings}
    longest = sum(weights[site] * length for site, length in lengths.items()) / sum(weights[site] for site in lengths)
    if round_.summed_norm > ROUNDING * longest:
        words = (
            f"the average step is {round_.summed_norm:.3g} long; by the lengths that the sites have signed "
            f"it is at most {longest:.3g}: one of these sites at least has signed a false one"
        )
        yield from (Alarm(site, round_.number, KIND, words) for site in lengths)
