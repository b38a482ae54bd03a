"""The head of a model card that programs read: Hugging Face's form, YAML between two lines of dashes.

Each value is written as JSON, which is YAML, too: no text can end the head or change what it says. Keys of Hugging Face
come first (https://huggingface.co/docs/hub/model-cards); `fedcervix` holds what they have no key for. No licence of the
weights is known: the owners of the images decide.
"""

from __future__ import annotations

import json

from cervix_study.export.model_source import Released

DASHES = "---"
TASKS = {"cervix model": "image-feature-extraction", "classifier": "image-classification"}


def front_matter(model: Released) -> str:
    """Return the head of a card, with its line breaks."""
    stands = model.standing
    own: dict[str, object] = {
        "kind": model.kind,
        "start": model.start,
        "sha256": model.digest,
        "sites": list(model.sites),
        "medical_device": False,
        "state": stands.state,
    }
    if stands.by:
        own |= {"state_since": stands.by.made_at, "state_reason": stands.by.why, "replaced_by": stands.by.replaced_by}
    head = {
        "license": "unknown",
        "library_name": "fedcervix",
        "pipeline_tag": TASKS[model.kind],
        "tags": ["medical", "cervix", "colposcopy", "self-supervised", "research-only", model.recipe.architecture],
        "fedcervix": own,
    }
    lines = [f"{key}: {json.dumps(value, allow_nan=False)}" for key, value in head.items()]
    return "\n".join([DASHES, *lines, DASHES, "", ""])
