"""Features laid out on a flat map: principal components first, then t-SNE, only for the report.

Rules
1. Directions count, lengths do not: rows are scaled to unit length, as the neighbour probe compares them by cosine.
2. The same features and seed give the same map, bit for bit. t-SNE adds up in the order in which its threads arrive
   and then amplifies the last digit, so it runs on one; at this size a second thread gains little.
3. Maps show no test women: a reader could be influenced in a choice.

Source: van der Maaten and Hinton, Visualizing Data using t-SNE, 2008 (with PCA to tens of dimensions before it).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from fedcervix.core.seeds import derive
from site_agent.training.knn_probe import Features

IMAGES_MIN = 10
"""below that there is nothing to see"""
IMAGES_MAX = 1000
COMPONENTS = 50
PERPLEXITY = 30.0
"""about so many neighbours each image is drawn towards; a third of the images where there are few"""
STEPS = 500
"""half of them after the early exaggeration: twice as many take twice the time and draw the same groups"""
ALIKE = 1e-6
"""features that differ by less are one: a collapsed model's"""


def choose(images: int, seed: int) -> npt.NDArray[np.int64]:
    """Return which of `images` are on the map: all, or `IMAGES_MAX` drawn by the seed; ascending."""
    drawn = np.random.default_rng(derive(seed, "embedding-map", "images")).permutation(images)
    return np.sort(drawn[:IMAGES_MAX])


def lay_out(features: Features, seed: int) -> npt.NDArray[np.float64]:
    """Return a place on the map for every row: (n, D) to (n, 2), n at least `IMAGES_MIN`; axes mean nothing.

    Rows that are all alike (a collapsed model) all get the same place. Raises ValueError for fewer rows.
    """
    if len(features) < IMAGES_MIN:
        raise ValueError(f"a map takes at least {IMAGES_MIN} images; found {len(features)}")
    drawn_from = derive(seed, "embedding-map", "t-sne") % 2**32  # scikit-learn takes 32 bits
    units = _unit_rows(features.astype(np.float64))
    if float(units.std(axis=0).max()) < ALIKE:
        return np.zeros((len(features), 2))
    components = PCA(min(COMPONENTS, *units.shape), svd_solver="randomized", random_state=drawn_from)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", max_iter=STEPS, random_state=drawn_from)
    with threadpool_limits(limits=1):
        return np.asarray(tsne.fit_transform(components.fit_transform(units)), np.float64)


def _unit_rows(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
