"""The colours of a site's collections, each made once and kept: the file site-colour.json of the home.

    {"/path/of/manifest.csv": {"lines": {"gain": [r, g, b], "offset": [r, g, b]}, "women": [...], "pictures": [...]}}

Rules
1. They are made when a recipe with `harmonise = "site-colour"` first needs them, from all training pictures but those
   through a green filter or after iodine: whichever recipe comes first, they are the same.
2. They never change by themselves: pictures that come later are brought to the reference by the same lines. A person
   who deletes the file begins anew; classifiers that were made with the old lines are then not compared.
3. The file names the women and pictures (SHA-256 of pixels) whose tissue made the lines, as splits.csv names women.
   Where one of them is in the test part now, nothing is read with these lines.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from fedcervix.core.formats import contents
from fedcervix.core.plan import Recipe, check
from fedcervix.disk.files import write_secret
from fedcervix.disk.storage import read_kept
from fedcervix.errors import DataError
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json
from site_agent.data.collection import Collection, Image
from site_agent.home import SiteHome
from site_agent.images.preparation import SiteColour, site_colour

LEFT_OUT = ("green", "iodine")


@dataclass(frozen=True, slots=True)
class KeptColours:
    """The colours of one collection, and who made them."""

    lines: SiteColour
    women: tuple[str, ...]
    """by every name that the manifest had for them"""
    pictures: tuple[str, ...]
    """SHA-256 of their pixels"""

    def made_by(self, images: Iterable[Image]) -> set[str]:
        """Return the women of these images whose pictures are in the colours."""
        women, pictures = set(self.women), set(self.pictures)
        return {i.woman for i in images if i.digest in pictures or not women.isdisjoint((i.woman, i.patient))}


def of(home: SiteHome, collection: Collection, recipe: Recipe) -> SiteColour | None:
    """Return the colours of a whole collection, made now where there are none yet; None where the recipe asks for none.

    Raises ValueError for a collection that is limited to stages, DataError where too few pictures show tissue or a test
    woman's are among those that made the colours, StorageError.
    """
    if recipe.harmonise == "none":
        return None
    check(not collection.stages, "the colours of a site are those of all its stages")
    known, name = _read(home), str(collection.folder / collection.manifest)
    if name not in known:
        known[name] = _made(collection)
        write_secret(home.colours, _text(known).encode())
    _check_unseen(home, known[name], collection)
    return known[name].lines


def kept(home: SiteHome, recipe: Recipe) -> SiteColour | None:
    """Return the colours of the home's collection, as they were made; None where the recipe asks for none."""
    if recipe.harmonise == "none":
        return None
    manifest = home.manifest()
    found = _read(home).get(str(manifest.parent / manifest.name))
    return found.lines if found else None


def _check_unseen(home: SiteHome, known: KeptColours, collection: Collection) -> None:
    found = known.made_by(image for image in collection.images if image.split == "test")
    if found:
        count = f"{len(found)} women of the test part are" if len(found) > 1 else "1 woman of the test part is"
        raise DataError(
            f"{count} among those whose pictures made the colours of the site",
            cause=f"they were training women when {home.colours} was made; the splits or the identifiers have changed",
            next_step=f"make the colours and what was trained with them again: rm {shlex.quote(str(home.colours))}; "
            f"then {home.command('finetune')}",
        )


def _made(collection: Collection) -> KeptColours:
    training = (image for image in collection.images if image.split == "train" and image.stage not in LEFT_OUT)
    used = [(image, image.tissue) for image in training if image.tissue is not None]
    try:
        lines = site_colour([tissue for _, tissue in used])
    except ValueError as error:
        manifest = collection.folder / collection.manifest
        raise DataError(
            f"the colours of {collection.manifest} cannot be told: {error}",
            cause="few pictures, or pictures whose middle does not have the colour of tissue",
            next_step=f"look at them: site-agent data sheet {manifest} found.png --findings; "
            'or train with harmonise = "none"',
        ) from error
    women = sorted({name for image, _ in used for name in (image.woman, image.patient)})
    return KeptColours(lines, tuple(women), tuple(sorted({image.digest for image, _ in used})))


def _read(home: SiteHome) -> dict[str, KeptColours]:
    remove = f"delete it (rm {shlex.quote(str(home.colours))}) and train again"
    again = f"restore {home.colours} from a backup, because models depend on it; or {remove}"
    return read_kept(home.colours, _parsed, missing={}, next_step=again)


def _parsed(content: bytes) -> dict[str, KeptColours]:
    found = contents("the file of colours", parsed(content))
    return {name: from_json(KeptColours, made) for name, made in found.items()}


def _text(known: dict[str, KeptColours]) -> str:
    named = {name: asdict(one) for name, one in sorted(known.items())}
    return json.dumps(named, indent=1, allow_nan=False) + "\n"
