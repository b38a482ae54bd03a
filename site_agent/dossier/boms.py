"""What the software consists of, as CycloneDX: the packages of this environment, as the environment itself tells."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re

from fedcervix.lineage.model_bill import Part, bill

ALIKE = re.compile(r"[-_.]+")


@functools.cache  # it does not change while a program runs
def software_bill() -> str:
    """Return the packages of this environment, as CycloneDX's JSON."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for one in importlib.metadata.distributions():
        found.setdefault(_canonical(str(one.metadata["Name"])), one)  # as an import does, the first one counts
    components = [_package(name, found[name]) for name in sorted(found)]
    needs = [{"ref": _purl(name, one), "dependsOn": _needs(one, found)} for name, one in sorted(found.items())]
    return bill("fedcervix", components, {"dependencies": needs}, {"python": platform.python_version()})


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
