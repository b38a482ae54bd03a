"""The command by which a person says, after a restore, that a first model was in no secure sum before."""

from __future__ import annotations

from fedcervix.errors import RunError
from fedcervix.runtime.printing import say
from fedcervix.trust.sum_memory import BaseVouched
from site_agent.home import SiteHome
from site_agent.store.sum_journal import SumJournal


def vouch(home: SiteHome, digest: str) -> None:
    """Write it down. Raises RunError where the agent is running, ConfigError, StorageError."""
    home.certificate()
    with home.locked():
        journal = SumJournal(home)
        if not journal.memory.restored:
            raise RunError(
                "this home was not restored, and remembers every model of which it was in a sum",
                cause="nobody needs to vouch for a model here",
                next_step=home.command(),
            )
        journal.remember(BaseVouched(digest))
    say(f"model {digest} counts as one of which no sum was made; the next restore takes that back")
    say(f"next: {home.command()}")
