"""The audit of one update of a run: by the worker before it is sent, or by `site-agent audit`."""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.models.blobs import BlobStore
from site_agent.data import dataset
from site_agent.data.collection import Collection
from site_agent.home import SiteHome
from site_agent.images.decode import OnCount, silent
from site_agent.network.encoder import build_encoder, load_weights
from site_agent.store.audit_sheets import AuditSheet
from site_agent.training.context import TrainingContext
from site_agent.training.membership_audit import Sides, attacks


@dataclass(frozen=True, slots=True)
class Update:
    """An update and the model that its training began with, by their digests."""

    round: int
    base: str
    digest: str

    def is_here(self, home: SiteHome) -> bool:
        """Say whether both files are in the home."""
        blobs = BlobStore(home.blobs)
        return bool(self.base and self.digest) and blobs.has(self.base) and blobs.has(self.digest)


def audit(
    home: SiteHome,
    collection: Collection,
    update: Update,
    context: TrainingContext,
    on_decoded: OnCount = silent,
    on_progress: OnCount = silent,
) -> AuditSheet:
    """Return the sheet of an update. Raises DataError, ModelError, StorageError, TrainingError."""
    recipe, blobs = context.recipe, BlobStore(home.blobs)
    sides = Sides(*dataset.audited(home, collection, recipe, context.seed, on_decoded))
    base, trained = (load_weights(blobs.path(digest)) for digest in (update.base, update.digest))
    found = attacks(build_encoder(recipe, 0), base, trained, sides, context, on_progress)
    training_women, other_women = sides.women
    return AuditSheet(
        round=update.round,
        base=update.base,
        update=update.digest,
        training_women=training_women,
        other_women=other_women,
        images=sides.images,
        attacks=found,
    )
