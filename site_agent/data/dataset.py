"""The site's images as the trainer takes them: arrays, by split and purpose.

The trainer itself, and torch with it, is imported where arrays are made: whoever only looks at a collection needs
neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedcervix.core.plan import Recipe, Roi
from site_agent.data import pixel_arrays, pixel_cache, site_colours
from site_agent.data.collection import Collection, Image, IndexSettings, index, require
from site_agent.data.pixel_store import Kind
from site_agent.data.pixels import Pixels
from site_agent.home import SiteHome
from site_agent.images.decode import OnCount, silent
from site_agent.images.preparation import Preparation
from site_agent.manifest.details import ImageDetails
from site_agent.manifest.reading import Split

if TYPE_CHECKING:
    from site_agent.data.image_sets import Images, Labelled


def settings_of(home: SiteHome, recipes: Iterable[Recipe] = ()) -> IndexSettings:
    """Return how the site's configuration has manifests indexed, for training by these recipes. Raises ConfigError."""
    data = home.config().data
    return IndexSettings(
        splits_file=home.splits,
        seed=data.split_seed,
        unreadable_max=data.unreadable_max,
        cache_folder=home.cache,
        not_same=home.not_same(),
        ignore_columns=data.ignore_columns,
        covariates=data.covariates,
        classes=data.label_classes,
        set_aside=data.set_aside,
        squares=tuple(Kind(recipe.image_px, recipe.fit) for recipe in recipes if not _prepares(recipe)),
    )


def open_collection(
    home: SiteHome, on_progress: OnCount = silent, on_compared: OnCount = silent, *, recipes: Iterable[Recipe] = ()
) -> Collection:
    """Index the manifest that the site's configuration names. Raises ConfigError, DataError, StorageError.

    `recipes` are those that training will use, where they are known: an image that is new is decoded once for all.
    """
    return index(home.manifest(), settings_of(home, recipes), on_progress=on_progress, on_compared=on_compared)


def contrastive(
    home: SiteHome, collection: Collection, recipe: Recipe, split: str, on_progress: OnCount = silent
) -> Images:
    """Return all images of the training (or validation) women at the recipe's stages, labelled or not."""
    used = collection.of_stages(recipe.stages)
    require(used, "pretrain")
    chosen = used.contrastive("train" if split == "train" else "valid")
    return _images_of(home, collection, recipe, chosen, on_progress)


def joined(parts: Sequence[Images]) -> Images:
    """Return several sites' images as one (the paper's CSSL, where pooling is allowed); no pixel is copied."""
    from site_agent.data.image_sets import Images

    patients = tuple(patient for part in parts for patient in part.patients)
    details = tuple(one for part in parts for one in part.details)
    runs = tuple(run for part in parts for run in part.runs or (len(part),)) if len(parts) > 1 else parts[0].runs
    return Images(pixel_arrays.joined([part.pixels for part in parts]), patients, runs, details)


def pooled(
    home: SiteHome,
    collections: Sequence[Collection],
    recipe: Recipe,
    split: Literal["train", "valid"],
    on_progress: OnCount = silent,
) -> Images:
    """Return the images of a split of all collections (the paper's CSSL), the site's own collection first.

    A picture that is in another part of any of the collections is left out: no test woman trains under another name.
    """
    barred = _barred(collections, split)
    parts = []
    for number, collection in enumerate(collections):
        used = collection.of_stages(recipe.stages)
        require(used, "pretrain")
        chosen = tuple(image for image in used.contrastive(split) if image.digest not in barred)
        part = _images_of(home, collection, recipe, chosen, on_progress)
        women = tuple(f"{number}:{image.woman}" if number else image.woman for image in chosen)
        parts.append(replace(part, patients=women))
    return joined(parts)


def pooled_images(
    collections: Sequence[Collection], split: Literal["train", "valid"], stages: Sequence[str] = ()
) -> tuple[list[Image], list[Image]]:
    """Return the images that `pooled` uses: of the site's own collection, and of the further ones."""
    barred, used = _barred(collections, split), [one.of_stages(stages) for one in collections]
    own, *others = ([i for i in found.contrastive(split) if i.digest not in barred] for found in used)
    return own, [image for found in others for image in found]


def _barred(collections: Sequence[Collection], split: str) -> set[str]:
    """Return the pictures of all other splits, those that a site's policy sets aside among them."""
    used = {one.digest for collection in collections for one in collection.images if one.split != split}
    return used | {one.digest for collection in collections for one in collection.set_aside if one.split != split}


def of_women(
    home: SiteHome, collection: Collection, recipe: Recipe, chosen: tuple[Image, ...], on_progress: OnCount = silent
) -> Images:
    """Return some images of the collection, with whose they are."""
    return _images_of(home, collection, recipe, chosen, on_progress)


def labelled(
    home: SiteHome, collection: Collection, recipe: Recipe, split: Split, on_progress: OnCount = silent
) -> Labelled:
    """Return the labelled images of a split at the recipe's stages."""
    from site_agent.data.image_sets import Labelled

    used = collection.of_stages(recipe.stages)
    require(used, "evaluate" if split == "test" else "finetune")
    chosen = used.labelled(split)
    labels = np.array([image.label for image in chosen], dtype=np.int64)
    pixels, women = _pixels(home, collection, chosen, recipe, on_progress), tuple(image.woman for image in chosen)
    classes = home.config().data.label_classes
    ranks = np.array([image.details.grade for image in chosen], np.int64) if classes.ordered else None
    return Labelled(pixels, labels, women, _details(chosen), ranks, classes)


def _details(chosen: Iterable[Image]) -> tuple[ImageDetails, ...]:
    """Return what is known of images, their stage by the manifest or else by their colours."""
    return tuple(replace(image.details, stage=image.stage) for image in chosen)


def _images_of(
    home: SiteHome, collection: Collection, recipe: Recipe, chosen: tuple[Image, ...], on_progress: OnCount
) -> Images:
    from site_agent.data.image_sets import Images

    pixels, women = _pixels(home, collection, chosen, recipe, on_progress), tuple(image.woman for image in chosen)
    return Images(pixels, women, details=_details(chosen))


def _prepares(recipe: Recipe) -> bool:
    return (recipe.roi, recipe.harmonise) != ("none", "none")


def preparations(
    home: SiteHome, collection: Collection, chosen: Sequence[Image], recipe: Recipe
) -> tuple[Preparation, ...]:
    """Return how the recipe has each picture prepared; () where it prepares none. Raises DataError, StorageError."""
    if not _prepares(recipe):
        return ()
    colour = site_colours.of(home, collection, recipe)
    return tuple(Preparation(_box(image, recipe.roi), colour) for image in chosen)


def _box(image: Image, roi: Roi) -> tuple[int, int, int, int] | None:
    box = {"none": None, "manifest": image.details.roi, "detector": image.cervix}[roi]
    return None if box is None else (box.x, box.y, box.w, box.h)


def _pixels(
    home: SiteHome, collection: Collection, chosen: tuple[Image, ...], recipe: Recipe, on_progress: OnCount
) -> Pixels:
    in_memory_gib = home.config().hardware.images_in_memory_gib
    return pixel_cache.load(
        collection.folder,
        chosen,
        recipe.image_px,
        recipe.fit,
        home.cache,
        on_progress,
        prepared=preparations(home, collection, chosen, recipe),
        memory_bytes_max=int(in_memory_gib * 2**30),
    )
