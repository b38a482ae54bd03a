"""What a large collection costs: time and memory to index it, to decode it once, to start again, to draw batches.

    python benchmarks/collection.py [--images 100000] [--px 224] [--quick] [--folder FOLDER] [--json FILE]

N distinct small JPEGs of two photographs a woman are made (no real image is read). Each row of the table is a process
of its own, so that its peak of memory is its own: `anonymous` is what the process holds for itself (RssAnon, looked at
every 20 ms), `resident` also counts pages of mapped files, which the system takes back at will (VmHWM). The squares
stay on the disk (images_in_memory_gib = 0) unless --in-memory-gib says otherwise. `killed` ends a first decoding by
SIGKILL half-way; `decode` then goes on. Where squares are loaded, `images` counts those that had to be decoded.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from fedcervix.core.plan import Fit
from site_agent.data import pixel_cache
from site_agent.data.collection import Collection, IndexSettings, index
from site_agent.images.decode import OnCount, silent

WIDTH, HEIGHT = 400, 300
FIT: Fit = "squash"
BATCHES, BATCH_IMAGES = 200, 256
QUICK_IMAGES = 3000
STAGES = ("index", "index again", "killed", "decode", "start again", "one more image", "batches")


def main() -> None:
    asked = _arguments()
    if asked.stage:
        print(json.dumps(_measured(asked)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as made:
        folder, started = Path(made), time.monotonic()
        generate(folder, asked.images)
        rows = [{"stage": "make the JPEGs", "seconds": time.monotonic() - started, "images": asked.images}]
        for stage in STAGES:
            rows.append(_stage(stage, folder, asked))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
        sizes = {file.suffix: file.stat().st_size for file in (folder / "cache").iterdir()}
    _table(rows, asked, sizes)
    if asked.json:
        Path(asked.json).write_text(json.dumps({"images": asked.images, "px": asked.px, "rows": rows, "bytes": sizes}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--in-memory-gib", type=float, default=0.0)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_IMAGES} images")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", help="file to write the numbers to")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.images = QUICK_IMAGES if asked.quick else asked.images
    return asked


def generate(folder: Path, count: int) -> None:
    """Write `count` JPEGs and manifests of all, and of all but the last."""
    with ProcessPoolExecutor(2) as pool:
        parts = [(folder, begin, min(begin + 500, count)) for begin in range(0, count, 500)]
        list(pool.map(_write_images, *zip(*parts, strict=True)))
    rows = [(_name(k), f"P{k // 2}", ("0", "1", "")[k // 2 % 3]) for k in range(count)]
    for name, kept in (("manifest.csv", rows[:-1]), ("grown.csv", rows)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("image", "patient", "label"), *kept])


def _name(k: int) -> str:
    return f"{k // 1000}/{k}.jpg"


def _write_images(folder: Path, begin: int, end: int) -> None:
    for k in range(begin, end):
        rough = np.random.default_rng(k).integers(0, 256, (24, 32, 3), np.uint8)
        (folder / _name(k)).parent.mkdir(exist_ok=True)
        Image.fromarray(rough).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(folder / _name(k), quality=85)


def _stage(stage: str, folder: Path, asked: argparse.Namespace) -> dict[str, object]:
    """Run a stage in a process of its own; end `killed` in the middle."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--images", str(asked.images)]
    command += ["--px", str(asked.px), "--in-memory-gib", str(asked.in_memory_gib)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if stage != "killed":
        [line] = process.stdout.read().splitlines()
        assert process.wait() == 0
        return {"stage": stage, **json.loads(line)}
    for line in process.stdout:
        if int(line) >= asked.images // 2:
            process.kill()
            break
    process.wait()
    return {"stage": stage, "images": int(line)}


def _measured(asked: argparse.Namespace) -> dict[str, object]:
    """Do a stage in this process; return its seconds and its peak of memory."""
    work = {"index": _index, "index again": _index, "killed": _decode_aloud, "batches": _batches}.get(
        asked.stage, _decode
    )
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], _status_bytes("RssAnon"))

    idle = _status_bytes("RssAnon")
    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds, images = work(asked)
    over.set()
    watcher.join()
    return {
        "seconds": seconds,
        "images": images,
        "idle_bytes": idle,
        "anonymous_bytes": peak[0],
        "resident_bytes": _status_bytes("VmHWM"),
    }


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _open(asked: argparse.Namespace) -> Collection:
    manifest = asked.folder / ("grown.csv" if asked.stage == "one more image" else "manifest.csv")
    return index(manifest, IndexSettings(splits_file=asked.folder / "splits.csv", cache_folder=asked.folder / "cache"))


def _load(asked: argparse.Namespace, collection: Collection, on_progress: OnCount) -> pixel_cache.Pixels:
    return pixel_cache.load(
        collection.folder,
        collection.images,
        asked.px,
        FIT,
        asked.folder / "cache",
        on_progress,
        memory_bytes_max=int(asked.in_memory_gib * 2**30),
    )


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    started = time.monotonic()
    images = work()
    return time.monotonic() - started, images


def _index(asked: argparse.Namespace) -> tuple[float, int]:
    return _timed(lambda: len(_open(asked).images))


def _decode(asked: argparse.Namespace) -> tuple[float, int]:
    """Load a collection that is indexed; count what was decoded."""
    collection, decoded = _open(asked), [0]

    def count(done: int, _of: int) -> None:
        decoded[0] = done

    def load() -> int:
        _load(asked, collection, count)
        return decoded[0]

    return _timed(load)


def _decode_aloud(asked: argparse.Namespace) -> tuple[float, int]:
    """Say how far it is, until somebody ends it."""
    _load(asked, _open(asked), lambda done, _of: print(done, flush=True) if done % 100 == 0 else None)
    raise SystemExit("nobody ended it")


def _batches(asked: argparse.Namespace) -> tuple[float, int]:
    pixels = _load(asked, _open(asked), silent)
    dice, total = np.random.default_rng(0), 0

    def draw() -> int:
        nonlocal total
        for _ in range(BATCHES):
            total += int(pixels[dice.integers(0, len(pixels), BATCH_IMAGES)][:, ::32, ::32].sum())
        return BATCHES * BATCH_IMAGES

    return _timed(draw)


def _line(row: dict[str, object]) -> str:
    def mib(key: str) -> str:
        return f"{int(str(row[key])) / 2**20:>8,.0f} MiB" if key in row else f"{'':>12}"

    seconds = float(str(row.get("seconds", 0)))
    rate = f"{int(str(row['images'])) / seconds:>11,.0f}" if seconds else f"{'':>11}"
    took = f"{seconds:>9.1f}" if seconds else f"{'':>9}"
    memory = "".join(mib(key) for key in ("idle_bytes", "anonymous_bytes", "resident_bytes"))
    return f"{row['stage']!s:<16}{row['images']:>9,}{took}{rate}{memory}"


def _table(rows: list[dict[str, object]], asked: argparse.Namespace, sizes: dict[str, int]) -> None:
    print(f"{asked.images:,} JPEGs of {WIDTH} x {HEIGHT}, squares of {asked.px} px")
    print(f"{'stage':<16}{'images':>9}{'seconds':>9}{'images/s':>11}{'idle':>12}{'anonymous':>12}{'resident':>12}")
    for row in rows:
        print(_line(row))
    print("on the disk: " + ", ".join(f"{size / 2**20:,.1f} MiB {suffix}" for suffix, size in sorted(sizes.items())))


if __name__ == "__main__":
    main()
