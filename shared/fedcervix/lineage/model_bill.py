"""What the models consist of, as a CycloneDX 1.6 bill of materials, without a time and without a random number.

A model names its ancestors by digest, who took part in making it, and what was decided on it. A serial number follows
from the content. Source: ECMA-424, CycloneDX v1.6 specification.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence

from fedcervix import __version__
from fedcervix.lineage.decisions import ModelStanding, speaker
from fedcervix.lineage.model_facts import ModelFacts

SPEC = "1.6"
NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
"""of names that are addresses (RFC 9562, 6.6)"""
USE_CASES = ["research on cervical screening"]
LIMITATIONS = ["It is no medical device.", "It was trained on images of patients."]

Part = dict[str, object]


def model_bill(models: Sequence[ModelFacts], standings: Mapping[str, ModelStanding], name: str) -> str:
    """Return models as CycloneDX's JSON. `standings`: of a digest; one that is missing is a candidate."""
    parts = [_model(one, standings.get(one.digest, ModelStanding())) for one in models]
    return bill(name, parts, {}, {})


def bill(name: str, components: Sequence[Part], more: Part, said: Mapping[str, str]) -> str:
    """Return a bill of components as CycloneDX's JSON; `more` are further parts, `said` properties of the whole."""
    content: Part = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": "this", "name": name, "version": __version__},
            "properties": _properties(said),
        },
        "components": list(components),
        **more,
    }
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    serial = {"serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, text)}"}
    return json.dumps(content | serial, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _model(one: ModelFacts, stands: ModelStanding) -> Part:
    """Return one model with its card."""
    part: Part = {
        "type": "machine-learning-model",
        "bom-ref": one.name,
        "name": one.name,
        "hashes": _hashes(one.digest),
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised" if one.is_classifier else "self-supervised"},
                "architectureFamily": "convolutional neural network",
                "modelArchitecture": one.architecture,
            },
            "considerations": {"useCases": USE_CASES, "technicalLimitations": LIMITATIONS},
        },
        "properties": _properties({**_origin(one), **_decided(stands)}),
    }
    if one.parents:
        ancestors = [
            {
                "type": "machine-learning-model",
                "bom-ref": f"{one.name}, {parent.role}",
                "name": parent.role,
                "hashes": _hashes(parent.digest),
            }
            for parent in one.parents
        ]
        part["pedigree"] = {"ancestors": ancestors}
    return part


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _origin(one: ModelFacts) -> dict[str, str]:
    said = {"start": one.start, "run": one.run, "plan": one.plan, "made": one.made_at, "made with": one.software}
    if one.epsilon is not None:
        said["epsilon of one woman (last layer only)"] = f"{one.epsilon:.3g}"
    for site in one.contributors:
        images = f", up to {site.images} images" if site.images else ""
        said[f"site {site.site}"] = "took part" if site.rounds is None else f"{site.rounds} rounds{images}"
    return said


def _decided(stands: ModelStanding) -> dict[str, str]:
    said: dict[str, str] = {"state": stands.state}
    if stands.by:
        said |= {
            "decided by": speaker(stands.by),
            "decided at": stands.by.made_at,
            "reason": stands.by.why,
            "replaced by": stands.by.replaced_by,
        }
    return said


def _properties(said: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": f"fedcervix:{name}", "value": value} for name, value in said.items() if value]
