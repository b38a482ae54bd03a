"""Named starting points: `paper` (to the letter), `recommended` (what measured better), `demo` (quick on two cores).

A profile fills every key; a configuration file then overrides single keys, and the plan records the result in full.
The paper is silent on many of them: docs/paper-fidelity.md says which, and why each profile chose as it did. A choice
enters `recommended` by a measurement on real collections (docs/benchmarks.md), and leaves it without one.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.core.plan import Augment, ClassifierRecipe, Recipe, Terms


@dataclass(frozen=True, slots=True)
class Profile:
    """A recipe for the sites and the terms of their federation."""

    recipe: Recipe
    terms: Terms


PROFILES: dict[str, Profile] = {
    "paper": Profile(Recipe(), Terms()),
    "recommended": Profile(
        Recipe(
            precision="auto",
            augment=Augment(rotation_deg=180.0, zoom_min=0.7, zoom_max=1.3),
        ),
        Terms(),
    ),
    "demo": Profile(
        Recipe(
            architecture="resnet18",
            image_px=64,
            epochs_max=6,
            lr=0.03,
            batch_images=16,
            classifier=ClassifierRecipe(lr=0.01, momentum=0.9, batch_images=16, epochs_max=10),
        ),
        Terms(rounds=6, lease_s=20.0, grace_s=20.0),
    ),
}
