"""`site-agent data`: checks of the images by a hospital's data manager, before training.

Everything printed here stays at the site: it names files and patients.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw
from rich.table import Table

from fedcervix.core.grouped import grouped
from fedcervix.disk.files import check_writable, write_secret
from fedcervix.errors import DataError, StorageError
from fedcervix.runtime.printing import console, say
from site_agent.commands.display import progress
from site_agent.data.collection import Collection, IndexSettings, Purpose, index, require
from site_agent.data.dataset import settings_of
from site_agent.data.duplicates import CrossPatientPicture, Duplicates
from site_agent.data.not_same import DECLARED, format_pairs
from site_agent.data.remarks import remarks
from site_agent.home import SiteHome
from site_agent.images.decode import PIXELS_MAX, decode, each, square
from site_agent.images.gate import FINDINGS
from site_agent.images.quality import CHECKS
from site_agent.manifest.reading import SPLITS, at_most

LISTED_MAX = 10
TILE_PX = 128
MARGIN_PX = 4
CAPTION_PX = 14
LABEL_COLOURS = {1: (214, 60, 60), 0: (60, 150, 90), None: (130, 130, 130)}
LABEL_NAMES = {1: "case", 0: "control", None: "unlabelled"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where the settings of a look come from."""

    home: SiteHome | None
    splits_file: Path | None
    """as the command line names it"""

    def command(self, words: str) -> str:
        """Return a command that looks with the same settings."""
        return self.home.command(words) if self.home else f"site-agent {words}"

    def settings(self, **options: Any) -> IndexSettings:
        """Return how the collection is indexed: as the options say, else as the home has it. Raises ConfigError."""
        given = {name: value for name, value in options.items() if value is not None}
        if self.home is None:
            return IndexSettings(**given)
        of_home = settings_of(self.home)
        given["ignore_columns"] = (*of_home.ignore_columns, *options["ignore_columns"])
        return dataclasses.replace(of_home, **{"keep_splits": self.splits_file is not None, **given})

    def told(self, collection: Collection) -> Iterator[str]:
        """Yield where settings and splits come from."""
        if self.home:
            yield f"settings: table [data] of {self.home.config_file}, and the options of this command"
        if collection.splits_given:
            yield "the manifest gives the splits"
        elif self.splits_file:
            yield f"the splits were drawn by woman; they are saved in {self.splits_file}"
        elif self.home:
            yield (
                f"the splits are those that training uses: {self.home.splits}, and for new women those that the next "
                "training draws (nothing was written there)"
            )
        else:
            yield "the splits were drawn by woman; they are not saved, because --splits names no file"


def check(home: SiteHome | None, manifest: Path | None, full: bool, write_pairs: Path | None, **options: Any) -> None:
    """Show what MANIFEST contains: women and images by split and class, unreadable files, copies, shared pictures.

    Without a manifest, that of the home is meant: one of both is given.
    """
    if write_pairs is not None:
        _check_new(write_pairs)
    source = Source(home, options["splits_file"])
    settings = source.settings(**options)
    manifest = manifest or cast("SiteHome", home).manifest()
    with progress("looking at images") as report:
        collection = index(manifest, settings, on_progress=report, on_found=_pair_writer(write_pairs))
    screen = console(highlight=False, soft_wrap=True)
    screen.print(_census_table(collection))
    screen.print("\n" + "\n".join(source.told(collection)))
    for heading, items in _findings(collection, source):
        listed = at_most(items, len(items) if full else LISTED_MAX)
        screen.print("\n" + "\n".join([heading, *(f"  {item}" for item in listed)]))
    screen.print(f"\n{_readiness(collection)}")
    drawn = source.command(f"data sheet {shlex.quote(str(manifest))} sheet.png")
    if collection.odd_images:
        screen.print(
            "\nto leave pictures of a kind out: write its word in [brackets] into set_aside, table [data] of site.toml"
        )
        screen.print(f"next: look at these pictures first: {drawn} --findings")
    else:
        screen.print(f"\nnext: look at the pictures: {drawn}")


def _check_new(pairs: Path) -> None:
    """Raise StorageError where the file is there: it may hold somebody's verdicts."""
    if os.path.lexists(pairs):
        raise StorageError(
            f"{pairs} exists already",
            cause="it may contain verdicts; this command overwrites no file",
            next_step="choose another name; to keep the earlier verdicts, add --not-same with the earlier file",
        )
    check_writable(pairs)


def _pair_writer(pairs: Path | None) -> Callable[[Duplicates], None]:
    def write(found: Duplicates) -> None:
        if pairs is None:
            return
        judged = ((False, found.shared_pictures), (True, found.told_apart))
        candidates = [
            (shared.images, shared.patients, declared)
            for declared, pictures in judged
            for shared in pictures
            if not shared.identical
        ]
        write_secret(pairs, format_pairs(candidates).encode())
        named = json.dumps(str(pairs.absolute()), allow_nan=False)
        say(
            f"{pairs} holds {len(candidates)} pairs that look alike. Look at the images of each; where they show two "
            f"women, write `{DECLARED}` into column verdict. Then set not_same = {named} "
            f"in table [data] of site.toml; to try it: --not-same {shlex.quote(str(pairs))}",
            err=True,
        )

    return write


def sheet(
    home: SiteHome | None, manifest: Path, picture: Path, count: int, *, findings: bool, force: bool, **options: Any
) -> None:
    """Draw a contact sheet of MANIFEST's images to OUT.png. It shows patients: it must not leave the site.

    `findings`: of what the gate has found instead of each split. Raises DataError, StorageError.
    """
    if os.path.lexists(picture) and not force:
        raise StorageError(
            f"{picture} exists already",
            cause="it contains an earlier sheet, or something else; files are overwritten only with --force",
            next_step="choose another name, or add --force to replace it",
        )
    check_writable(picture)
    settings = Source(home, options["splits_file"]).settings(**options)
    with progress("looking at images") as report:
        collection = index(manifest, settings, on_progress=report)
    blocks = list((_found_blocks if findings else _split_blocks)(collection, count, settings.seed))
    if not blocks:
        raise _nothing_found(manifest)
    drawn = contact_sheet(collection.folder, blocks, min(count, 8))
    encoded = io.BytesIO()
    drawn.save(encoded, format="PNG")
    write_secret(picture, encoded.getvalue())
    what = "kind of finding" if findings else "split"
    say(f"{picture} shows up to {count} images of each {what}; it shows patients: keep it at this site")


@dataclass(frozen=True, slots=True)
class Tile:
    """One image of a contact sheet."""

    path: str
    caption: str
    colour: tuple[int, int, int]
    """of frame and caption"""


@dataclass(frozen=True, slots=True)
class TileBlock:
    """Images of a contact sheet below one heading."""

    heading: str
    tiles: Sequence[Tile]


def contact_sheet(folder: Path, blocks: Sequence[TileBlock], columns: int) -> Pillow.Image:
    """Return the blocks one below the other. The images are below `folder`."""
    side = TILE_PX + 2 * MARGIN_PX
    heights = [CAPTION_PX + MARGIN_PX + -(-len(block.tiles) // columns) * (side + CAPTION_PX) for block in blocks]
    canvas = Pillow.new("RGB", (max(columns, 4) * side, sum(heights)), "white")
    top = 0
    for block, height in zip(blocks, heights, strict=True):
        ImageDraw.Draw(canvas).text((MARGIN_PX, top + MARGIN_PX), block.heading, fill="black")
        for k, (tile, drawn) in enumerate(zip(block.tiles, each(_drawn_from(folder), block.tiles), strict=True)):
            left, below = (k % columns) * side, top + CAPTION_PX + MARGIN_PX + (k // columns) * (side + CAPTION_PX)
            _draw_tile(canvas, drawn, tile, left, below)
        top += height
    return canvas


def _split_blocks(collection: Collection, count: int, seed: int) -> Iterator[TileBlock]:
    """Yield up to `count` images of each split, chosen by the seed, framed by label."""
    for split in SPLITS:
        images = [image for image in collection.images if image.split == split]
        chosen = sorted(images, key=lambda image: _order(seed, image.digest))[:count]
        tiles = [
            Tile(image.path, f"{image.patient[:14]} {LABEL_NAMES[image.label]}", LABEL_COLOURS[image.label])
            for image in chosen
        ]
        yield TileBlock(f"{split}: {len({image.woman for image in images})} women", tiles)


def _found_blocks(collection: Collection, count: int, seed: int) -> Iterator[TileBlock]:
    """Yield up to `count` images of each finding, chosen by the seed; what is set aside has a red frame."""
    aside = {one.image for one in collection.set_aside}
    for check in (*CHECKS, *FINDINGS):
        images = collection.odd_images.get(check.name, ())
        chosen = sorted(images, key=lambda image: _order(seed, image))[:count]
        tiles = [
            Tile(image, f"{Path(image).name[-22:]}", LABEL_COLOURS[1] if image in aside else LABEL_COLOURS[None])
            for image in chosen
        ]
        if tiles:
            yield TileBlock(_block_title(check.name, len(images), len(aside & set(images)), len(tiles)), tiles)


def _block_title(name: str, images: int, aside: int, shown: int) -> str:
    some = f", {shown} shown" if shown < images else ""
    return f"{name}: {images} {'image' if images == 1 else 'images'}, {aside} set aside{some}"


def _order(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def _nothing_found(manifest: Path) -> DataError:
    return DataError(
        f"nothing was found that images of {manifest.name} could be set aside for",
        cause="every image shows tissue, is sharp and well lit, and neither green nor brown",
        next_step=f"look at all images: site-agent data sheet {shlex.quote(str(manifest))} sheet.png",
    )


def _census_table(collection: Collection) -> Table:
    named = {image.patient for image in collection.images}.union(*collection.spellings)
    patients = len(named.union(*(shared.patients for shared in collection.shared_pictures)))
    women = len({image.woman for image in collection.images})
    table = Table(
        title=f"{collection.manifest}: {collection.rows} rows, {len(collection.images)} pictures used, "
        f"{patients} patients" + (f", probably {women} women" if women < patients else ""),
        title_justify="left",
    )
    for name in ("split", "class"):
        table.add_column(name)
    for name in ("women", "labelled images", "all images"):
        table.add_column(name, justify="right")
    before = ""
    for row in collection.census():
        table.add_row(
            "" if row.split == before else row.split, row.stratum, f"{row.women}", f"{row.labelled}", f"{row.images}"
        )
        before = row.split
    return table


def _findings(collection: Collection, source: Source) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield a heading and its items per kind of thing that the data manager should know."""
    reasons = Counter(one.reason for one in collection.quarantined)
    unreadable = ", ".join(f"{count}: {reason}" for reason, count in reasons.most_common())
    kinds: tuple[tuple[str, Sequence[str]], ...] = (
        (
            f"{len(collection.quarantined)} unreadable, left out ({unreadable})",
            [one.told for one in collection.quarantined],
        ),
        (
            f"pictures that several patients share; these stay in one split ({_advice(collection, source)})",
            _pairs(collection),
        ),
        (
            f"{len(collection.told_apart)} pairs of images look alike and are declared to show two women",
            [" and ".join(shared.images) for shared in collection.told_apart],
        ),
        (
            f"{len(collection.without_effect)} declared pairs have no effect; remove them from the file of pairs",
            collection.without_effect,
        ),
        (
            f"{len(collection.disputed)} images show one picture with contradicting labels; they count as unlabelled",
            collection.disputed,
        ),
        (
            f"{len(collection.copies)} images repeat the pixels of another; each picture is used once",
            [f"{one.image} repeats {one.of}" for one in collection.copies],
        ),
        ("patients whose split changed, because they share a picture with a patient of that split", collection.moved),
    )
    yield from ((remark.heading, remark.items) for remark in remarks(collection))
    yield from ((heading, items) for heading, items in kinds if items)


def _advice(collection: Collection, source: Source) -> str:
    """Return what to do about pictures that several patients share."""
    manifest = shlex.quote(str(collection.folder / collection.manifest))
    return "if they are one woman, give her one name; if pictures of two women look alike: " + source.command(
        f"data check {manifest} --write-pairs pairs.csv"
    )


def _pairs(collection: Collection) -> list[str]:
    """Return one line per set of patients who share pictures, the contradictory first."""
    by_patients = grouped((shared.patients, shared) for shared in collection.shared_pictures)
    ordered = sorted(by_patients.items(), key=lambda item: (not any(shared.conflicting for shared in item[1]), item[0]))
    return [f"{' = '.join(patients)}: {_shared(shared_pictures)}" for patients, shared_pictures in ordered]


def _shared(shared_pictures: Sequence[CrossPatientPicture]) -> str:
    identical = sum(shared.identical for shared in shared_pictures)
    parts = [
        (identical, "identical"),
        (len(shared_pictures) - identical, "saved twice with other pixels"),
        (sum(shared.conflicting for shared in shared_pictures), "with contradicting labels"),
    ]
    noun = "picture" if len(shared_pictures) == 1 else "pictures"
    return f"{len(shared_pictures)} {noun}: " + ", ".join(f"{count} {what}" for count, what in parts if count)


def _readiness(collection: Collection) -> str:
    lines = []
    for purpose in get_args(Purpose):
        try:
            require(collection, purpose)
            lines.append(f"{purpose}: ready")
        except DataError as error:
            lines.append(f"{purpose}: not possible\n  {error.explain()}".replace("\n", "\n  "))
    return "\n".join(lines)


def _drawn_from(folder: Path) -> Callable[[Tile], Pillow.Image]:
    def drawn(tile: Tile) -> Pillow.Image:
        pixels = decode(folder / tile.path, pixels_max=PIXELS_MAX)
        return Pillow.fromarray(np.asarray(square(pixels, TILE_PX, "crop")))

    return drawn


def _draw_tile(canvas: Pillow.Image, drawn: Pillow.Image, tile: Tile, left: int, top: int) -> None:
    pen = ImageDraw.Draw(canvas)
    edge = TILE_PX + 2 * MARGIN_PX - 1
    pen.rectangle((left, top, left + edge, top + edge), fill=tile.colour)
    canvas.paste(drawn, (left + MARGIN_PX, top + MARGIN_PX))
    pen.text((left + MARGIN_PX, top + edge), tile.caption, fill=tile.colour)
