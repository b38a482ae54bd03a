"""How long indexing takes with the gate and without it, for pictures of two megapixels, on the cores there are.

    python benchmarks/gate.py                     1,000 pictures, drawn into a folder that is removed afterwards
    python benchmarks/gate.py --pictures 100

It prints, for each side, wall seconds and processor seconds of decoding and of what is measured on every decoded
picture, and what the gate adds. The limit that the gate is held to: 60 s of wall time for 1,000 pictures on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from site_agent.images.appearance import appearance
from site_agent.images.decode import each, opened, pixel_digest
from site_agent.images.gate import findings
from site_agent.images.quality import oddities
from site_agent.images.samples import Decoded
from site_agent.images.thumbnails import thumbnail
from site_agent.phantom import INSTITUTIONS, write_institution

SIZE_PX = (1632, 1224)
"""two megapixels"""
DIFFERENT = 20
"""pictures that are drawn; the others are copies of their files"""
LIMIT_S = 60.0


def drawn(folder: Path, pictures: int) -> list[Path]:
    """Write so many JPEG files of two megapixels."""
    write_institution(folder / "phantoms", INSTITUTIONS["alts"], women=6, seed=0, unlabelled_per_labelled=1.0)
    sources = sorted((folder / "phantoms" / "images").glob("*.jpg"))[:DIFFERENT]
    files = []
    for k in range(pictures):
        file = folder / f"{k}.jpg"
        if k < len(sources):
            with Image.open(sources[k]) as picture:
                picture.resize(SIZE_PX, Image.Resampling.BICUBIC).save(file, quality=90)
        else:
            file.write_bytes(files[k % len(sources)].read_bytes())
        files.append(file)
    return files


def nothing(seen: Decoded) -> object:
    """Decode only."""
    return seen.pixels.shape


def without(seen: Decoded) -> object:
    """Measure what indexing measures without the gate."""
    return pixel_digest(seen.pixels), thumbnail(seen.pixels), oddities(seen)


def gated(seen: Decoded) -> object:
    """Measure all of it."""
    return without(seen), findings(appearance(seen.pixels))


def timed(files: list[Path], work: Callable[[Decoded], object]) -> tuple[float, float]:
    """Return wall and processor seconds of decoding all files and doing this with each."""

    def one(file: Path) -> object:
        with opened(file) as seen:
            return work(seen)

    wall, processor = time.perf_counter(), time.process_time()
    each(one, files)
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Draw, measure, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=int, default=1000)
    pictures = options.parse_args().pictures
    appearance(np.zeros((64, 64, 3), np.uint8))  # what is loaded with the first picture
    with tempfile.TemporaryDirectory() as folder:
        files = drawn(Path(folder), pictures)
        rows = {
            name: timed(files, work) for name, work in (("decoding", nothing), ("indexing", without), ("gate", gated))
        }
    print(f"{pictures} pictures of {SIZE_PX[0]} x {SIZE_PX[1]} pixels")
    print(f"{'':28}{'wall s':>8}{'processor s':>13}")
    for name, label in (
        ("decoding", "decoding"),
        ("indexing", "indexing without the gate"),
        ("gate", "indexing with it"),
    ):
        print(f"{label:28}{rows[name][0]:8.1f}{rows[name][1]:13.1f}")
    added = [with_it - base for with_it, base in zip(rows["gate"], rows["indexing"], strict=True)]
    print(f"{'the gate adds':28}{added[0]:8.1f}{added[1]:13.1f}")
    print(f"limit for 1,000 pictures on two cores, beyond decoding: {LIMIT_S:g} s of wall time")


if __name__ == "__main__":
    main()
