"""Who can read what in a run: plays each actor and prints what it found.

    python -m tests.e2e.who_sees [--kind KIND ...] [--real]

A run of three sites over real processes. Every actor gets what it has in reality:

    network      every byte that passes between the sites and the coordinator
    coordinator  its home folder, files that came and went included, and its memory
    site         the same of another site
    thief        the home folder alone, as it is at one moment or another

Each is searched for pieces of what is worth protecting at site `nhs`. Without `--real`, the sites' training is
arithmetic (light_site.py), and what is searched for are weights, figures and keys. With it, the sites train on
pictures, and those and the names of women are searched for.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import re
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from site_agent.phantom import INSTITUTIONS, write_institution
from tests.e2e.line import Connection, Line, Way
from tests.e2e.loopback import Federation, Process, until

OWNER, NEXT, OTHER = "nhs", "alts", "via"
SITES = (OWNER, NEXT, OTHER)
IMAGES, LOSS = 48_271, 1.2345678901234567
PIECE_BYTES = 32
READ_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of run."""

    mode: str
    run: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[str, Any] = field(default_factory=dict)


KINDS = {
    "csfssl": Kind("csfssl"),
    "ppfssl": Kind("ppfssl"),
    "secure": Kind("csfssl", terms={"secure_sum": True, "holders": ["alts"]}),
    "sealed": Kind("ppfssl", terms={"sealed": True}),
}

Pieces = Callable[[], Iterable[bytes]]
"""what an asset is recognised by: as far as it exists by now"""


class Seen:
    """What an actor has read: by asset."""

    def __init__(self, assets: Mapping[str, Pieces]) -> None:
        self._assets = assets
        self.found: set[str] = set()

    def look(self, blocks: Iterable[bytes]) -> None:
        """Search blocks of bytes, each of which follows the one before."""
        wanted = {name: tuple(pieces()) for name, pieces in self._assets.items() if name not in self.found}
        end = b""
        for block in blocks:
            seam = end + block
            self.found |= {name for name, pieces in wanted.items() if any(piece in seam for piece in pieces)}
            end = block[-PIECE_BYTES:]


class RecordedLine(Line):
    """A line that remembers what passes."""

    def __init__(self, to: int, seen: Seen) -> None:
        self._seen, self._kept = seen, bytearray()
        super().__init__(to)

    def meddle(self, connection: Connection, way: Way, data: bytes) -> bytes | None:
        with self._lock:
            self._kept += data
        return super().meddle(connection, way, data)

    def look(self) -> None:
        with self._lock:
            self._seen.look([bytes(self._kept)])


def memory(pid: int) -> Iterator[bytes]:
    """Yield what a process holds in memory that it can write to; nothing where it has ended."""
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/mem").open("rb", buffering=0) as held:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if not (area := re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)):
                continue
            at, end = (int(edge, 16) for edge in area.groups())
            with contextlib.suppress(OSError, ValueError, OverflowError):
                held.seek(at)
                while at < end and (block := held.read(min(READ_BYTES, end - at))):
                    yield block
                    at += len(block)


class Disk:
    """Folders, with the files that came and went in them: each is linked from elsewhere when it is seen."""

    def __init__(self, kept: Path, *folders: Path) -> None:
        self._folders, self._kept = folders, kept
        self._known: dict[int, Path] = {}
        kept.mkdir(parents=True)

    def keep(self) -> None:
        """Link what is new."""
        for folder, _, names in chain.from_iterable(map(os.walk, self._folders)):
            for name in names:
                with contextlib.suppress(OSError):
                    file = Path(folder) / name
                    if (inode := file.lstat().st_ino) not in self._known:
                        os.link(file, self._kept / str(inode), follow_symlinks=False)
                        self._known[inode] = self._kept / str(inode)

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes of all files that were seen."""
        self.keep()
        for file in self._known.values():
            if file.is_file():
                with file.open("rb") as opened:
                    while block := opened.read(READ_BYTES):
                        yield block
                yield bytes(PIECE_BYTES)  # no piece goes from one file into the next


@dataclass
class Actor:
    """A party to a run, and what it could read so far."""

    disk: Disk
    process: Process
    thief: Seen
    itself: Seen

    def look(self) -> None:
        self.itself.look(memory(self.process.pid))

    def end(self) -> None:
        self.thief.look(self.disk.blocks())
        self.itself.found |= self.thief.found


def weights(file: Path) -> Iterator[bytes]:
    """Yield a few pieces of a model's numbers; none where it is not there yet."""
    if file.is_file():
        content = file.read_bytes()
        for at in (len(content) // 3, len(content) // 2, len(content) - 4 * PIECE_BYTES):
            yield content[at : at + PIECE_BYTES]


def light_assets(federation: Federation, trained: Path) -> dict[str, Pieces]:
    """Return what is worth protecting of the first site where nothing trains: it keeps its models in `trained`."""
    home = federation.site(OWNER)
    return {
        "the site's own weights of a round": lambda: weights(trained / "train-1"),
        "the result": lambda: (p for f in home.models.glob("*/cervix-model.safetensors") for p in weights(f)),
        "its exact loss": lambda: (repr(LOSS).encode(), struct.pack("<d", LOSS)),
        "its number of images": lambda: (f'"images":{IMAGES}'.encode(), f'"images": {IMAGES}'.encode()),
        "its private key": lambda: (home.pem("site.key").splitlines()[1],),
    }


def real_assets(manifest: Path) -> dict[str, Pieces]:
    """Return what is worth protecting where sites train on pictures: the first site's."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    pictures = [(manifest.parent / row["image"]).read_bytes() for row in rows]
    middles = [content[len(content) // 2 :][:PIECE_BYTES] for content in pictures]
    named = [row[column].encode() for row in rows for column in ("image", "patient")]
    return {"its pictures": lambda: middles, "names of women and files": lambda: named}


def draw(folder: Path) -> None:
    """Draw a collection for each site."""
    for seed, site in enumerate(SITES):
        institution = INSTITUTIONS["nhs" if site == OWNER else "alts"]
        write_institution(folder / site, institution, women=8, seed=seed, unlabelled_per_labelled=0.5)


def play(folder: Path, kind: Kind, *, real: bool = False) -> tuple[dict[str, set[str]], list[str]]:
    """Run a federation; return what each actor could read of site `nhs`, and all that was searched for."""
    run = Federation(folder / "run", sites=SITES, run=dict(kind.run), terms=dict(kind.terms))
    trained = folder / "trained"
    trained.mkdir()
    if real:
        draw(folder / "pictures")
    manifests = {site: folder / "pictures" / site / "manifest.csv" for site in SITES} if real else {}
    assets = real_assets(manifests[OWNER]) if real else light_assets(run, trained)
    try:
        coordinator = run.coordinate("--mode", kind.mode)
        network = Seen(assets)
        line = RecordedLine(run.port, network)
        for site in SITES:
            run.enrol(site, manifests.get(site))
            run.settle(site, manifests.get(site), port=line.port)
        run.know()
        options = {OWNER: ["--images", IMAGES, "--loss", LOSS, "--keep", trained]}
        agents = {s: run.agent(s) if real else run.light(s, *map(str, options.get(s, ()))) for s in SITES}
        places = {"coordinator": (coordinator, run.home.folder)} | {
            site: (agents[site], run.site(site).folder, *(m.parent for m in [manifests.get(site)] if m))
            for site in SITES
        }
        actors = {
            name: Actor(Disk(folder / "kept" / name, *folders), process, Seen(assets), Seen(assets))
            for name, (process, *folders) in places.items()
        }
        _watch(actors.values(), lambda: not any(p.running() for p in (coordinator, *agents.values())), run)
        for process in (coordinator, *agents.values()):
            assert process.ended() == 0, run.texts()
        line.look()
        for actor in actors.values():
            actor.end()
        seen = {"network": network.found}
        for name, actor in actors.items():
            seen |= {name: actor.itself.found, f"{name}'s disk": actor.thief.found}
        del seen[OWNER]
        return seen, list(assets)
    finally:
        run.close()


def _watch(actors: Iterable[Actor], ended: Callable[[], bool], run: Federation) -> None:
    """Look at disks all the time and at memories again and again, until the run has ended."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(0.01):
            for actor in actors:
                actor.disk.keep()

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()

    def looked() -> bool:
        for actor in actors:
            actor.look()
        return ended()

    try:
        until("the run ends", looked, seen=run.texts)
    finally:
        over.set()
        keeper.join()


def table(seen: Mapping[str, set[str]], assets: Iterable[str]) -> str:
    """Return what each actor could read, as a table in Markdown."""
    rows = [["", *seen], ["---"] * (len(seen) + 1)]
    rows += [[asset, *("yes" if asset in found else "no" for found in seen.values())] for asset in assets]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Play each kind of run and print its table."""
    options = argparse.ArgumentParser()
    options.add_argument("--kind", choices=KINDS, nargs="*", default=list(KINDS))
    options.add_argument("--real", action="store_true")
    given = options.parse_args()
    for name in given.kind:
        with tempfile.TemporaryDirectory() as folder:
            seen, assets = play(Path(folder), KINDS[name], real=given.real)
            sys.stdout.write(f"{name}\n\n{table(seen, assets)}\n\n")


if __name__ == "__main__":
    main()
