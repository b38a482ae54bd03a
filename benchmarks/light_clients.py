"""Many sites in one process: the real link and the real conversation, each site in a thread, one model on the disk.

    python -m benchmarks.light_clients FOLDER SITE ...

What a site fetches it hashes; the first to fetch a model also keeps it, for all of them. What a site sends is that
model with one number changed, a different one for each. So 64 sites need the disk of one, and the machine is the
coordinator's.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.light_agent import PEMS
from benchmarks.payloads import number_at
from fedcervix.core import session
from fedcervix.core.events import ModelAdopted, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.core.rounds.instructions import Finish
from fedcervix.errors import RemoteError
from fedcervix.models.blobs import CHUNK_BYTES
from fedcervix.transport import codec
from site_agent.federation.link import GrpcLink
from site_agent.home import SiteHome


class Kept:
    """The models that the sites of this process share: at most two, the older one makes room."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._here: dict[str, threading.Event] = {}

    def claim(self, digest: str) -> bool:
        """Return whether the caller is the one to keep this model."""
        with self._lock:
            first = digest not in self._here
            if first:
                for old in list(self._here)[:-1]:
                    del self._here[old]
                    self.path(old).unlink()
                self._here[digest] = threading.Event()
            return first

    def path(self, digest: str) -> Path:
        return self._folder / f"kept-{digest}"

    def settle(self, digest: str) -> None:
        """Say that the file is whole."""
        self._here[digest].set()

    def wait(self, digest: str) -> None:
        """Return when the file is whole."""
        self._here[digest].wait()


class Blobs:
    """One site's models, as `GrpcLink` asks for them."""

    def __init__(self, kept: Kept, place: int) -> None:
        self._kept, self._place = kept, place
        self.held = ""
        self._base, self._number = Path(), b""

    def has(self, digest: str) -> bool:
        """Say whether this site fetched the model last."""
        return digest == self.held

    def expect(self, _digest: str, _sender: str, *, size_bytes: int) -> int:
        """All of it is wanted, whatever its size."""
        return 0 * size_bytes

    def resume_at(self, _digest: str, _sender: str) -> int:
        """Nothing is left over from an earlier try."""
        return 0

    def receive(self, digest: str, _sender: str, chunks: Iterator[bytes], *, offset: int, size_bytes: int) -> bool:
        """Hash what arrives; keep it where this site is the first."""
        assert offset == 0
        hasher, keeps, have = hashlib.sha256(), self._kept.claim(digest), 0
        with self._kept.path(digest).open("wb") if keeps else contextlib.nullcontext() as out:
            for chunk in chunks:
                hasher.update(chunk)
                have += len(chunk)
                if out is not None:
                    out.write(chunk)
        if hasher.hexdigest() != digest:
            raise RemoteError("the bytes received are not the model that was announced")
        if keeps:
            self._kept.settle(digest)
        self.held = digest
        return have == size_bytes

    def train(self, base: str, round_: int) -> str:
        """Make this site's update of a model; return its digest. No average of such numbers is one of them."""
        self._kept.wait(base)
        self._base, self._number = self._kept.path(base), struct.pack("<f", round_ + math.sqrt(self._place + 2) / 1000)
        hasher = hashlib.sha256()
        for chunk in self.chunks("", 0):
            hasher.update(chunk)
        return hasher.hexdigest()

    def size_bytes(self, _digest: str) -> int:
        """Return the update's length."""
        return self._base.stat().st_size

    def chunks(self, _digest: str, offset: int, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the update."""
        place = number_at(self._base)
        with self._base.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(chunk_bytes):
                inside = place - offset
                if 0 <= inside < len(chunk):
                    chunk = chunk[:inside] + self._number + chunk[inside + 4 :]
                yield chunk
                offset += len(chunk)


def take_part(site: str, link: GrpcLink, blobs: Blobs) -> Finish:
    """Do what the coordinator asks until it says to leave."""
    for said in link.attach():
        if isinstance(said, codec.Welcome):
            link.report(codec.Ready(said.run, said.plan.digest))
        elif isinstance(said, Task):
            if said.base != blobs.held:
                link.fetch(said.base, blobs, ignore)  # type: ignore[arg-type]
            link.report(_done(site, said, link, blobs))
        elif isinstance(said, Finish):
            return said
    raise RuntimeError("the coordinator closed the line")


def _done(site: str, task: Task, link: GrpcLink, blobs: Blobs) -> session.Result:
    if task.kind is TaskKind.SCORE:
        return ScoreReported(site, task, 1 / task.round, 1, 1, (), time.time())
    if task.kind is TaskKind.ADOPT:
        return ModelAdopted(site, task, time.time())
    digest = blobs.train(task.base, task.round)
    link.push(digest, blobs, ignore)  # type: ignore[arg-type]
    return UpdateStored(site, task, digest, 1, 1, 1.0, 0.1, time.time())


def ignore(_done: int, _of: int) -> None:
    """Show no progress."""


def main() -> None:
    """Let all sites take part."""
    folder, sites = Path(sys.argv[1]), sys.argv[2:]
    # Two processes must not keep their models under the same name.
    (own := folder / f"kept-by-{sites[0]}").mkdir()
    kept = Kept(own)

    def one(site: str) -> Any:
        home = SiteHome(folder / site)
        pems = {part: home.pem(file) for part, file in PEMS.items()}
        with contextlib.closing(GrpcLink(home.config().link.coordinator, **pems)) as link:
            return take_part(site, link, Blobs(kept, int(site.removeprefix("site"))))

    with ThreadPoolExecutor(len(sites)) as pool:
        for done in as_completed([pool.submit(one, site) for site in sites]):
            if error := done.exception():
                traceback.print_exception(error, file=sys.stdout)
                sys.stdout.flush()
                os._exit(1)  # the others would wait for this one
            print(done.result())


if __name__ == "__main__":
    main()
