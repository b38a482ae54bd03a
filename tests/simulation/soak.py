"""Many histories, for as long as one likes: `python -m tests.simulation.soak --histories 100000 --seed 0`."""

from __future__ import annotations

import collections
import sys
import time
import traceback

import click

from tests.simulation.histories import history
from tests.simulation.sum_histories import honest_history, sum_history
from tests.simulation.world import ViolationError


def rounds(number: int) -> tuple[str, list[str]]:
    """Return the outcome of a history of rounds, and what happened in it."""
    found = history(number)
    return f"{found.plan.mode} {found.run.outcome}", found.trace


def sums(number: int) -> tuple[str, list[str]]:
    """Return how many sums a malicious coordinator got, and what it tried; an honest one gets all of them."""
    honest_history(number)
    found = sum_history(number)
    return f"{found.sums} sums", [f"{found.terms} {sorted(found.colluders)}", *found.attacks]


WORLDS = {"rounds": rounds, "sums": sums}


@click.command()
@click.option(
    "--world", type=click.Choice(list(WORLDS)), default="rounds", show_default=True, help="What is simulated."
)
@click.option("--histories", default=10_000, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="Number of the first.")
@click.option("--trace", is_flag=True, help="Print what happened, event by event.")
def soak(world: str, histories: int, seed: int, trace: bool) -> None:
    """Simulate histories; stop at the first in which the design does not hold."""
    begun_s, outcomes = time.monotonic(), collections.Counter[str]()
    for number in range(seed, seed + histories):
        try:
            outcome, happened = WORLDS[world](number)
        except ViolationError:
            traceback.print_exc()
            sys.exit(1)
        outcomes[outcome] += 1
        if trace:
            click.echo("\n".join(happened))
    took_s = time.monotonic() - begun_s
    click.echo(f"{histories:,} histories from seed {seed} in {took_s:.0f} s, {histories / took_s:.0f} a second")
    click.echo(", ".join(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items())))


if __name__ == "__main__":
    soak()
