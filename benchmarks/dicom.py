"""How long an import from DICOM files takes, and how much memory.

    python benchmarks/dicom.py [--headers 10000] [--cine-frames 1100]

1. Headers: so many files are read up to their pixels, as an import does for each file.
2. A cine of frames of 640 x 480 in one file (1,100 frames: 1 GB): the sharpest frame is chosen, and written. Printed
   are the seconds, and the largest resident memory of the process that decodes.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from site_agent.dicom.chosen_frames import FrameChoice
from site_agent.dicom.frame_process import FrameProcess
from site_agent.dicom.headers import read_header
from tests.unit.dicoms import dataset, pattern, write


def headers(folder: Path, count: int) -> None:
    """Print how long it takes to read so many headers."""
    first = write(folder, "0.dcm", dataset(pattern()))
    for number in range(1, count):
        shutil.copyfile(first, folder / f"{number}.dcm")
    begun = time.perf_counter()
    for file in folder.iterdir():
        read_header(file)
    print(f"{count:,} headers: {time.perf_counter() - begun:.1f} s", flush=True)


def draw(folder: Path, frames: int) -> None:
    """Write a cine, in a process whose memory is not that of the import."""
    chance = np.random.default_rng(0)
    write(folder, "cine.dcm", dataset(chance.integers(0, 256, (frames, 480, 640, 3), np.uint8)))


def cine(folder: Path, frames: int) -> None:
    """Print what one large file costs: each frame is looked at, the sharpest one is written."""
    drawing = get_context("spawn").Process(target=draw, args=(folder, frames))
    drawing.start()
    drawing.join()
    file = folder / "cine.dcm"
    begun = time.perf_counter()
    with FrameProcess() as process:
        [index] = FrameChoice("sharpest:1").of(frames, lambda at: process.sharpness(file, at))
        process.write(file, index, folder / "frame.png", 0)
        seconds, peak_mib = time.perf_counter() - begun, process.peak_bytes() / 2**20
    print(f"a cine of {file.stat().st_size / 1e6:,.0f} MB: {seconds:.0f} s, {peak_mib:.0f} MiB resident at most")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headers", type=int, default=10_000)
    parser.add_argument("--cine-frames", type=int, default=1_100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        headers(Path(folder) / "headers", asked.headers)
        cine(Path(folder), asked.cine_frames)


if __name__ == "__main__":
    main()
