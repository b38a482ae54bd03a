"""What the coordinator checks of a model under seal, which it cannot read: length, signer, and its header's fields."""

from __future__ import annotations

from fedcervix.core.events import Rewrapped, Seal, UpdateStored
from fedcervix.core.rounds.state import Run
from fedcervix.errors import RemoteError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.sealed_files import read_header
from fedcervix.trust.ledger import Ledger
from fedcervix.trust.seals import passed_on_faults, update_faults


def check_sealed(run: Run, ledger: Ledger, blobs: BlobStore, update: UpdateStored) -> None:
    """Raise RemoteError where a sealed model is not the one that its site was asked for, StorageError."""
    _insist(update_faults(run, ledger.federation, update, ledger.keys.get(update.site)))
    assert isinstance(update.seal, Seal)
    if read_header(blobs.path(update.packed)).text != update.seal.header:
        _insist(["the file has another header than the one that was signed"])


def check_passed_on(run: Run, ledger: Ledger, event: Rewrapped) -> None:
    """Raise RemoteError where a key was not passed on as asked."""
    _insist(passed_on_faults(run, event.site, event.task.base, event.seal, ledger.keys.get(event.site)))


def _insist(faults: list[str]) -> None:
    if faults:
        raise RemoteError(
            f"the sealed model is refused: {'; '.join(faults)}",
            cause="the site's version differs, or its agent was changed",
            next_step="compare the versions of coordinator and site",
        )
