"""The colours of a site's collections, each made once and kept: the file site-colour.json of the home.

    {"/path/of/manifest.csv": {"gain": [r, g, b], "offset": [r, g, b]}}

Rules
1. They are made when a recipe with `harmonise = "site-colour"` first needs them, from all training pictures but those
   through a green filter or after iodine: whichever recipe comes first, they are the same.
2. They never change by themselves: pictures that come later are brought to the reference by the same lines. A person
   who deletes the file begins anew; classifiers that were made with the old lines are then not compared.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from fedcervix.core.formats import contents
from fedcervix.core.plan import Recipe, check
from fedcervix.disk.files import write_secret
from fedcervix.disk.storage import read_kept
from fedcervix.errors import DataError
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json
from site_agent.data.collection import Collection
from site_agent.home import SiteHome
from site_agent.images.preparation import SiteColour, site_colour

LEFT_OUT = ("green", "iodine")


def of(home: SiteHome, collection: Collection, recipe: Recipe) -> SiteColour | None:
    """Return the colours of a whole collection, made now where there are none yet; None where the recipe asks for none.

    Raises ValueError for a collection that is limited to stages, DataError where too few pictures show tissue,
    StorageError.
    """
    if recipe.harmonise == "none":
        return None
    check(not collection.stages, "the colours of a site are those of all its stages")
    known, name = _read(home), str(collection.folder / collection.manifest)
    if name not in known:
        known[name] = _made(collection)
        write_secret(home.colours, _text(known).encode())
    return known[name]


def kept(home: SiteHome, recipe: Recipe) -> SiteColour | None:
    """Return the colours of the home's collection, as they were made; None where the recipe asks for none."""
    if recipe.harmonise == "none":
        return None
    manifest = home.manifest()
    return _read(home).get(str(manifest.parent / manifest.name))


def _made(collection: Collection) -> SiteColour:
    training = (image for image in collection.images if image.split == "train" and image.stage not in LEFT_OUT)
    tissues = [image.tissue for image in training if image.tissue is not None]
    try:
        return site_colour(tissues)
    except ValueError as error:
        manifest = collection.folder / collection.manifest
        raise DataError(
            f"the colours of {collection.manifest} cannot be told: {error}",
            cause="few pictures, or pictures whose middle does not have the colour of tissue",
            next_step=f"look at them: site-agent data sheet {manifest} found.png --findings; "
            'or train with harmonise = "none"',
        ) from error


def _read(home: SiteHome) -> dict[str, SiteColour]:
    again = f"restore {home.colours} from a backup: models depend on it"
    return read_kept(home.colours, _parsed, missing={}, next_step=again)


def _parsed(content: bytes) -> dict[str, SiteColour]:
    found = contents("the file of colours", parsed(content))
    return {name: from_json(SiteColour, lines) for name, lines in found.items()}


def _text(known: dict[str, SiteColour]) -> str:
    named = {name: asdict(one) for name, one in sorted(known.items())}
    return json.dumps(named, indent=1, allow_nan=False) + "\n"
