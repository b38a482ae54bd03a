"""The classifiers a site has fine-tuned, each in a folder of its own below classifiers/, with how it came about."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcervix import __version__
from fedcervix.errors import ModelError
from fedcervix.files import write_whole
from fedcervix.plan import Recipe, parse_recipe
from fedcervix.storage import disk
from site_agent.home import SiteHome

if TYPE_CHECKING:
    from site_agent.finetune import Classifier, EpochRecord, Finetuned

WEIGHTS = "classifier.safetensors"
RECORD = "record.json"
ORDER = ("Random", "ImageNet", "SSL", "CSSL", "CSFSSL", "PPFSSL")
"""how the paper lists the initialisations"""


@dataclass(frozen=True, slots=True)
class StoredClassifier:
    """One fine-tuned classifier."""

    folder: Path
    start: str
    """the initialisation: Random, ImageNet, SSL, CSSL, CSFSSL, PPFSSL_..."""
    recipe: Recipe
    seed: int
    threshold: float
    """chosen on validation images"""
    collection: str
    """digest of the collection it was trained on"""
    record: dict[str, Any]

    def build(self) -> Classifier:
        """Return the network with its weights. Raises ModelError."""
        from site_agent.finetune import build_classifier
        from site_agent.model import apply_weights, load_weights

        classifier, _ = build_classifier(self.recipe, self.seed, None)
        apply_weights(classifier, load_weights(self.folder / WEIGHTS), what=f"classifier {self.start}")
        return classifier

    @property
    def history(self) -> tuple[EpochRecord, ...]:
        """Its training curve."""
        from site_agent.finetune import EpochRecord

        return tuple(EpochRecord(**epoch) for epoch in self.record["history"])


def keep(
    home: SiteHome,
    start: str,
    fitted: Finetuned,
    recipe: Recipe,
    *,
    seed: int,
    threshold: float,
    collection: str,
    origin: dict[str, Any],
) -> StoredClassifier:
    """Write a classifier with its record. Raises StorageError."""
    import torch

    from site_agent.model import save_weights

    folder = home.folder / "classifiers" / start.lower()
    record = {
        "start": start,
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "threshold": threshold,
        "collection": collection,
        "origin": origin,
        "best_epoch": fitted.best_epoch,
        "stopped": fitted.stopped,
        "history": [dataclasses.asdict(epoch) for epoch in fitted.history],
        "software": f"fedcervix {__version__}, torch {torch.__version__}",
    }
    with disk(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / WEIGHTS, fitted.best_state)
    write_whole(folder / RECORD, json.dumps(record, indent=1).encode())
    return read(folder)


def read(folder: Path) -> StoredClassifier:
    """Return the classifier in a folder. Raises ModelError."""
    try:
        record = json.loads((folder / RECORD).read_text())
        return StoredClassifier(
            folder,
            record["start"],
            parse_recipe(record["recipe"]),
            record["seed"],
            record["threshold"],
            record["collection"],
            record,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} holds no classifier ({error})",
            cause="not a classifier's folder, or written by another version",
            next_step="site-agent finetune",
        ) from error


def all_classifiers(home: SiteHome) -> list[StoredClassifier]:
    """Return the site's classifiers in the paper's order."""
    found = [read(record.parent) for record in (home.folder / "classifiers").glob(f"*/{RECORD}")]
    return sorted(found, key=lambda c: (_rank(c.start, ORDER), c.start))


def _rank(start: str, order: Sequence[str]) -> int:
    family = start.split("_")[0]
    return order.index(family) if family in order else len(order)
