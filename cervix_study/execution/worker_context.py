"""What a worker keeps between cells: the machine, and one fold's images, decoded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cervix_study.data.folds import Fold
from cervix_study.execution.host import processor
from cervix_study.study_paths import Places
from fedcervix.core.plan import Recipe
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from site_agent.data import dataset
from site_agent.data.collection import Collection
from site_agent.data.image_sets import Images, Labelled
from site_agent.home import SiteHome
from site_agent.manifest.reading import Split
from site_agent.network.devices import Machine, name_of, ready
from site_agent.network.precision import resolve_precision
from site_agent.store import model_store

Part = Literal["train", "valid"]


@dataclass(slots=True)
class WorkerContext:
    """Images and labels of the fold that was worked on last; another fold's take their place."""

    places: Places
    on_progress: OnProgress
    _machine: Machine | None = None
    _fold: Fold = None
    _collections: dict[str, Collection] = field(default_factory=dict)
    _images: dict[tuple[Any, ...], Images] = field(default_factory=dict)
    _labelled: dict[tuple[Any, ...], Labelled] = field(default_factory=dict)

    def machine(self, site: str, fold: Fold) -> Machine:
        """Return what this process trains on; set up once, as the home of the first site asked for says."""
        if self._machine is None:
            self._machine = ready(self.places.home(site, fold).config().hardware)
        return self._machine

    def machine_name(self, site: str, fold: Fold) -> str:
        """Return the processor or GPU that this process trains on."""
        device = self.machine(site, fold).device
        return processor() if device.type == "cpu" else name_of(device)

    def settled(self, recipe: Recipe, site: str, fold: Fold) -> Recipe:
        """Return the recipe with its precision settled for this machine."""
        return resolve_precision(recipe, self.machine(site, fold).device, self.places.cache)

    def imagenet(self, site: str, fold: Fold) -> Path | None:
        """Return the file with ImageNet's weights that the study names."""
        return self.places.home(site, fold).imagenet_weights()

    def start_weights(self, recipe: Recipe, site: str, fold: Fold) -> Path | None:
        """Return the file that an encoder of this recipe starts from. Raises as `model_store.start_weights` does."""
        return model_store.start_weights(self.places.home(site, fold), recipe)

    def collection(self, site: str, fold: Fold) -> Collection:
        """Return a site's collection."""
        self._turn_to(fold)
        if site not in self._collections:
            home = self.places.home(site, fold)
            self._collections[site] = dataset.open_collection(home, self._counted("looking at images"))
        return self._collections[site]

    def used(self, site: str, fold: Fold, recipe: Recipe) -> Collection:
        """Return a site's collection at the recipe's stages."""
        return self.collection(site, fold).of_stages(recipe.stages)

    def images(self, sites: tuple[str, ...], fold: Fold, recipe: Recipe, part: Part) -> Images:
        """Return a site's images for contrastive learning, or the pooled ones of several."""
        self._turn_to(fold)
        name = (sites, part, recipe.image_px, recipe.fit, recipe.roi, recipe.harmonise, recipe.stages)
        if name not in self._images:
            collections = [self.collection(site, fold) for site in sites]
            home, counted = self._home(sites[0]), self._counted("decoding")
            self._images[name] = dataset.pooled(home, collections, recipe, part, counted)
        return self._images[name]

    def labelled(self, site: str, fold: Fold, recipe: Recipe, split: Split) -> Labelled:
        """Return a site's labelled images of a split."""
        self._turn_to(fold)
        name = (site, split, recipe.image_px, recipe.fit, recipe.roi, recipe.harmonise, recipe.stages)
        if name not in self._labelled:
            collection, counted = self.collection(site, fold), self._counted("decoding")
            self._labelled[name] = dataset.labelled(self._home(site), collection, recipe, split, counted)
        return self._labelled[name]

    def _home(self, site: str) -> SiteHome:
        return self.places.home(site, self._fold)

    def _turn_to(self, fold: Fold) -> None:
        if fold != self._fold:
            self._fold = fold
            for kept in (self._collections, self._images, self._labelled):
                kept.clear()

    def _counted(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, of: self.on_progress(WorkProgress(stage, done, of, "images"))
