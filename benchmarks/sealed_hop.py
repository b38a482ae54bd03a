"""What a hop of a ring under seal costs beside a plain one: both in turn, in one run, step by step.

    python -m benchmarks.sealed_hop FOLDER [--model ResNet-50] [--turns 7] [--mbit-s 100 1000]

Prints the median seconds of each step, and those of processors, which other work changes less. Then the bytes of a hop
on the line, and the time of a whole hop on lines of a given speed: its steps by the seconds of processors, and the
bytes up to the coordinator and down to the next site.

    seal       the site that trained: encrypts, hashes and writes; only under seal
    arrives    the coordinator: hashes, writes and syncs; in the open it also checks the values, and measures the step
    fetched    the next site: hashes, writes and syncs
    open       the next site: decrypts, hashes and writes; only under seal
    vet        the next site: checks the values
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.averaging import models
from benchmarks.payloads import RESNET50, SMALL
from fedcervix.disk.files import digest_file
from fedcervix.models.blobs import BlobStore
from fedcervix.models.sealed_files import seal, unseal
from fedcervix.models.step_norms import Meter
from fedcervix.models.stream_validation import Arriving
from fedcervix.models.weights import read_layout, vet_values
from fedcervix.runtime.printing import say
from fedcervix.trust.sealed_models import Header, content_key

PAYLOADS = {payload.name: payload for payload in (SMALL, RESNET50)}
Step = Callable[[], object]


def main() -> None:
    """Write the models, and take turns."""
    asked = _arguments()
    base, [model] = models(asked.folder, 1, PAYLOADS[asked.model])
    key, header = bytes(32), _header(model)
    file = asked.folder / "sealed"
    seal(model, header, key, file)
    sides = {
        "plain": _plain(asked.folder, base, model),
        "sealed": _sealed(asked.folder, model, file, header, key),
    }
    taken = {(side, name): list[tuple[float, float]]() for side, steps in sides.items() for name in steps}
    for _ in range(asked.turns):
        for side, steps in sides.items():
            for name, step in steps.items():
                taken[side, name].append(_seconds(step))
    middle = {which: tuple(map(statistics.median, zip(*times, strict=True))) for which, times in taken.items()}
    for (side, name), (wall, processor) in middle.items():
        say(f"{side:7} {name:8} {wall:6.3f} s {processor:6.3f} s of processors")
    used_s = {side: sum(processor for (of, _), (_, processor) in middle.items() if of == side) for side in sides}
    sizes = {"plain": model.stat().st_size, "sealed": file.stat().st_size}
    say(f"bytes   {sizes['plain']:,} plain, {sizes['sealed']:,} sealed: {sizes['sealed'] / sizes['plain'] - 1:+.3%}")
    for mbit_s in asked.mbit_s:
        hop_s = {side: used_s[side] + 2 * 8 * sizes[side] / (mbit_s * 1e6) for side in sides}
        more = hop_s["sealed"] / hop_s["plain"] - 1
        say(f"{mbit_s:5} Mbit/s: a hop takes {hop_s['plain']:.2f} s plain, {hop_s['sealed']:.2f} s sealed: {more:+.1%}")


def _plain(folder: Path, base: Path, model: Path) -> Mapping[str, Step]:
    layout, digest = read_layout(base), digest_file(model)

    def arrives() -> None:
        seen = Arriving(model.stat().st_size, layout, Meter(base, layout))
        _arrives(folder / "coordinator", model, digest, seen.see)
        assert seen.sound
        seen.close()

    fetched = partial(_arrives, folder / "site", model, digest)
    return {"arrives": arrives, "fetched": fetched, "vet": partial(vet_values, model)}


def _sealed(folder: Path, model: Path, file: Path, header: Header, key: bytes) -> Mapping[str, Step]:
    opened, digest = folder / "opened", digest_file(file)
    return {
        "seal": partial(seal, model, header, key, folder / "sealed again"),
        "arrives": partial(_arrives, folder / "coordinator", file, digest),
        "fetched": partial(_arrives, folder / "site", file, digest),
        "open": partial(unseal, file, key, opened),
        "vet": partial(vet_values, opened),
    }


def _header(model: Path) -> Header:
    digest = digest_file(model)
    size_bytes = model.stat().st_size
    made = Header("benchmark", "run", "0" * 64, 1, 1, "site", "0" * 64, digest, digest, size_bytes)
    assert content_key(bytes(32), made)
    return made


def _arrives(folder: Path, file: Path, digest: str, see: Callable[[bytes], object] = len) -> None:
    """Receive a file that is in memory, as a transfer does."""
    blobs, size_bytes = BlobStore(folder), file.stat().st_size
    with file.open("rb") as source:
        incoming = blobs.incoming(digest, "sender", offset=0, size_bytes=size_bytes)
        blobs.expect(digest, "sender", size_bytes=size_bytes)
        incoming.open()
        while chunk := source.read(1 << 19):
            see(chunk)
            incoming.write(chunk)
        assert incoming.settle()
    blobs.retire(())
    blobs.forget("sender")
    blobs.purge()


def _seconds(step: Step) -> tuple[float, float]:
    """Return the seconds that a step takes, and those of processors."""
    begun, used = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - begun, time.process_time() - used


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path)
    made.add_argument("--model", choices=sorted(PAYLOADS), default=RESNET50.name)
    made.add_argument("--turns", type=int, default=7)
    made.add_argument("--mbit-s", type=int, nargs="+", default=[100, 1000])
    return made.parse_args()


if __name__ == "__main__":
    main()
