"""What the software and the models consist of: CycloneDX 1.6, without a time and without a random number.

The software bill lists the packages of the environment that wrote it, as the environment itself tells. The bill of
models lists what the site keeps. A serial number follows from the content.

Source: ECMA-424, CycloneDX v1.6 specification.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
import re
import uuid
from collections.abc import Sequence

from fedcervix import __version__
from site_agent.dossier.facts import ModelFacts

SPEC = "1.6"
NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
"""of names that are addresses (RFC 9562, 6.6)"""
ALIKE = re.compile(r"[-_.]+")

Part = dict[str, object]


@functools.cache  # it does not change while a program runs
def software_bill() -> str:
    """Return the packages of this environment, as CycloneDX's JSON."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for one in importlib.metadata.distributions():
        found.setdefault(_canonical(str(one.metadata["Name"])), one)  # as an import does, the first one counts
    components = [_package(name, found[name]) for name in sorted(found)]
    needs = [{"ref": _purl(name, one), "dependsOn": _needs(one, found)} for name, one in sorted(found.items())]
    return _bill("fedcervix", components, {"dependencies": needs}, {"python": platform.python_version()})


def model_bill(models: Sequence[ModelFacts]) -> str:
    """Return the site's models, as CycloneDX's JSON."""
    return _bill("models of this site", [_model(one) for one in models], {}, {})


def _canonical(name: str) -> str:
    """Return a name as indexes compare it (PyPA, name normalization)."""
    return ALIKE.sub("-", name).lower()


def _purl(name: str, one: importlib.metadata.Distribution) -> str:
    return f"pkg:pypi/{name}@{one.version}"


def _package(name: str, one: importlib.metadata.Distribution) -> Part:
    part: Part = {
        "type": "library",
        "bom-ref": _purl(name, one),
        "name": name,
        "version": one.version,
        "purl": _purl(name, one),
    }
    licence = one.metadata.json.get("license_expression")
    return part | ({"licenses": [{"expression": licence}]} if licence else {})


def _needs(one: importlib.metadata.Distribution, found: dict[str, importlib.metadata.Distribution]) -> list[str]:
    """Return the packages of this environment that a package asks for, those of its extras included."""
    asked = {_canonical(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]) for text in one.requires or ()}
    return [_purl(name, found[name]) for name in sorted(asked & found.keys())]


def _model(one: ModelFacts) -> Part:
    """Return one model with its card."""
    said = {"start": one.start, "run": one.run, "made": one.made_at}
    if one.epsilon is not None:
        said["epsilon of one woman (last layer only)"] = f"{one.epsilon:.3g}"
    return {
        "type": "machine-learning-model",
        "bom-ref": one.name,
        "name": one.name,
        "hashes": [{"alg": "SHA-256", "content": one.digest}],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised" if one.is_classifier else "self-supervised"},
                "architectureFamily": "convolutional neural network",
                "modelArchitecture": one.architecture,
            },
            "considerations": {
                "useCases": ["research on cervical screening"],
                "technicalLimitations": ["It is no medical device.", "It was trained on images of patients."],
            },
        },
        "properties": _properties(said),
    }


def _properties(said: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": f"fedcervix:{name}", "value": value} for name, value in said.items() if value]


def _bill(name: str, components: Sequence[Part], more: Part, said: dict[str, str]) -> str:
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
