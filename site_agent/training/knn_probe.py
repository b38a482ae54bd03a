"""Is it learning something about cervices? Features of labelled images, and how well neighbours share a label.

The contrastive loss tells whether images are told apart, not whether what tells them apart has to do with disease. The
k-nearest-neighbour probe asks that without training anything: a labelled validation image is scored by the nearest
labelled training images, all of other women. It is a gauge for the people who watch a training; no choice of epoch or
weights rests on it.

Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018 (k-NN as a probe).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcervix.core.plan import Recipe
from site_agent.data import dataset
from site_agent.data.collection import Collection, can
from site_agent.data.image_sets import Labelled
from site_agent.data.pixels import Pixels
from site_agent.home import SiteHome
from site_agent.images.decode import OnCount, silent
from site_agent.manifest.reading import Split
from site_agent.metrics import auc
from site_agent.network.augmentation import standardise, to_input
from site_agent.network.encoder import Encoder

Probe = Callable[[Encoder], float | None]
Features = npt.NDArray[np.float32]

NEIGHBOURS = 11
"""odd, so that equal distances give no tie; of fewer labelled images all are asked"""
BATCH_IMAGES = 64
LABELLED: tuple[Split, Split] = ("train", "valid")
"""known, and asked"""


@torch.no_grad()
def embed(encoder: Encoder, pixels: Pixels, device: torch.device, on_progress: OnCount = silent) -> Features:
    """Return what a classifier starts from: (n, S, S, 3) bytes to (n, 512 or 2048), in eval mode and float32."""
    was_training = encoder.training
    encoder.eval()
    rows = []
    for chosen in _batches(len(pixels)):
        rows.append(_features(encoder, pixels[chosen], device))
        on_progress(int(chosen[-1]) + 1, len(pixels))
    encoder.train(was_training)
    return np.asarray(torch.cat(rows).cpu().numpy(), np.float32)


def neighbour_scores(known: Features, labels: npt.NDArray[np.int64], asked: Features) -> npt.NDArray[np.float64]:
    """Return the share of cases among the nearest `known` images, nearer ones weighing more: (m,) of 0 to 1.

    Distance is 1 - cosine. Raises ValueError unless both classes are known.
    """
    if set(labels.tolist()) != {0, 1}:
        raise ValueError("neighbours of both classes are needed")
    from sklearn.neighbors import KNeighborsClassifier  # a second to load, and not wanted where there are no labels

    probe = KNeighborsClassifier(n_neighbors=min(NEIGHBOURS, len(known)), metric="cosine", weights="distance")
    probe.fit(known, labels)
    return np.asarray(probe.predict_proba(asked)[:, 1], np.float64)


def linear_predictions(known: Features, classes: npt.NDArray[np.int64], asked: Features) -> npt.NDArray[np.int64]:
    """Return the class that a linear probe gives each of the `asked` images: (m,). In fitting it, classes count alike.

    Features are scaled to unit variance; the penalty is strong, because there are more of them than women.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(known)
    probe = LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
    probe.fit(scale.transform(known), classes)
    return np.asarray(probe.predict(scale.transform(asked)), np.int64)


def label_probe(
    home: SiteHome,
    collection: Collection,
    recipe: Recipe,
    device: torch.device,
    on_decoded: OnCount = silent,
    on_progress: OnCount = silent,
) -> Probe:
    """Return what scores an encoder by the site's labels: validation images by training images.

    It says None where the site has too few labels. Raises DataError if an image vanished.
    """
    if not can(collection.of_stages(recipe.stages), "finetune"):
        return lambda _encoder: None
    known, asked = (dataset.labelled(home, collection, recipe, part, on_decoded) for part in LABELLED)
    return lambda encoder: neighbour_auc(encoder, known, asked, device, on_progress)


def neighbour_auc(
    encoder: Encoder, known: Labelled, asked: Labelled, device: torch.device, on_progress: OnCount = silent
) -> float | None:
    """Return the AUC of the `asked` images scored by their nearest `known` ones; None where either lacks a class."""
    if any({0, 1} - set(part.labels.tolist()) for part in (known, asked)):
        return None
    features = [embed(encoder, part.pixels, device, on_progress) for part in (known, asked)]
    return auc(asked.labels, neighbour_scores(features[0], known.labels, features[1]))


def _features(encoder: Encoder, pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    x = standardise(to_input(torch.from_numpy(pixels).to(device)))
    return torch.flatten(encoder.features(x), 1).float()


def _batches(count: int) -> list[npt.NDArray[np.int64]]:
    return [np.arange(start, min(start + BATCH_IMAGES, count)) for start in range(0, count, BATCH_IMAGES)]
