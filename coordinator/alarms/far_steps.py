"""Alarms of updates with a part that is far from its base: weights, running means or running variances.

`unusual_steps` compares what is trained. An update whose running variances are a million times as large trains hardly
at all, and yet every output of the average is the same. So the farthest part of each update, which the coordinator
measures when it is sent (see `fedcervix.models.step_norms`), is compared with those of the round's other sites. This is
a matter of orders of magnitude, so one other site is enough, and no history is needed.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedcervix.core.alarms import Alarm
from fedcervix.core.rounds.state import Round, Run

BEYOND_OTHERS = 10.0
"""this many times as far as any other site's update of the round"""
HONEST_MAX = 20.0
"""times its base's size: at thirty times the paper's learning rate, an honest first round moved 12.4 (decision 101)"""


def far_steps(_run: Run, round_: Round) -> Iterator[Alarm]:
    """Yield an alarm for each update of which a part lies much farther from its base than any part of the others'."""
    steps = {update.site: update.step for update in (*round_.contributions, *round_.dropped)}
    for site, step in steps.items():
        others = [found for name, found in steps.items() if name != site]
        if others and step > max(HONEST_MAX, BEYOND_OTHERS * max(others)):
            words = (
                f"a part of its update is {step:.3g} times the base's size away from the base; "
                f"at other sites at most {max(others):.3g}"
            )
            yield Alarm(site, round_.number, "step", words)
