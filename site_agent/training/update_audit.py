"""The audit of one update of a run: by the worker before it is sent, or by `site-agent audit`."""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.models.blobs import BlobStore
from site_agent.data import dataset
from site_agent.data.audited_women import chosen_for_audit
from site_agent.data.collection import Collection
from site_agent.home import SiteHome
from site_agent.images.decode import OnCount, silent
from site_agent.network.encoder import build_encoder, load_weights
from site_agent.store.audit_sheets import WOMEN_MIN, Attack, AuditSheet
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
    """Return the sheet of an update. Where there are too few women, no image is decoded.

    Raises DataError, ModelError, StorageError, TrainingError.
    """
    chosen = chosen_for_audit(collection.of_stages(context.recipe.stages), context.seed)
    training_women, other_women = (len({image.woman for image in side}) for side in chosen)
    found: tuple[Attack, ...] = ()
    if min(training_women, other_women) >= WOMEN_MIN:
        sides = Sides(*(dataset.of_women(home, collection, context.recipe, side, on_decoded) for side in chosen))
        base, trained = (load_weights(BlobStore(home.blobs).path(file)) for file in (update.base, update.digest))
        found = attacks(build_encoder(context.recipe, 0), base, trained, sides, context, on_progress)
    return AuditSheet(
        round=update.round,
        base=update.base,
        update=update.digest,
        training_women=training_women,
        other_women=other_women,
        images=sum(map(len, chosen)),
        attacks=found,
    )
