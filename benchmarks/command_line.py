"""What all benchmark programs are asked in the same way, and what they say before they begin."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import photographs
from benchmarks.photographs import Photographs, Pixels
from benchmarks.sides import cores, machine
from fedcervix.core.plan import Precision
from site_agent.data.collection import Image
from site_agent.network.devices import choose, prepare

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long is measured."""

    turns_fewest: int
    turns_most: int
    turn_s: float
    """of a side's turn, or one step if that takes longer"""


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that every program has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="the smallest rows, few and short turns")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures here, after every row")
    made.add_argument("--rows", nargs="+", metavar="ROW", help="rows by the beginning of their name: resnet18/64")
    made.add_argument("--precision", choices=PRECISIONS, help="this one alone")
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    made.add_argument("--threads", type=int, default=cores(), help="of the arithmetic, for every side")
    made.add_argument("--women", type=int, help="four photographs of each are drawn")
    made.add_argument("--turns", type=int, help="of every side, at most")
    made.add_argument("--turn-seconds", type=float, help="of a turn (a step, if that takes longer)")
    return made


def timing(asked: argparse.Namespace) -> Timing:
    """Return how long to measure: many short turns tell more than few long ones."""
    most = asked.turns or (3 if asked.quick else 7)
    return Timing(min(most, 2 if asked.quick else 3), most, asked.turn_seconds or (0.5 if asked.quick else 1.0))


def begin(program: str, asked: argparse.Namespace) -> tuple[torch.device, dict[str, Any]]:
    """Set the process up for all sides alike; say where this is, and begin the JSON with it."""
    device = choose(asked.device)
    prepare(device, asked.threads)
    about = machine(device)
    print(" ".join(f"{key}={value}" for key, value in about.items()), flush=True)
    return device, {"program": program, "arguments": sys.argv[1:], "machine": about}


def draw(asked: argparse.Namespace, folder: Path, found: dict[str, Any]) -> Photographs:
    """Draw the JPEG files, and say what they are."""
    drawn = photographs.draw(folder, asked.women or (8 if asked.quick else 24))
    files = len(drawn.collection.images)
    found["files"] = {"count": files, "mean_bytes": drawn.mean_bytes, "index_s": drawn.index_s}
    size = f"{photographs.WIDTH_PX} x {photographs.HEIGHT_PX}, {drawn.mean_bytes / 1e6:.2f} MB each"
    print(
        f"{files} JPEG files of {size}; indexed (decoded and fingerprinted, once) in {drawn.index_s:.1f} s", flush=True
    )
    return drawn


def squares(
    drawn: Photographs, images: Sequence[Image], sides_px: Sequence[int], found: dict[str, Any]
) -> dict[int, Pixels]:
    """Decode the images to squares of every size, and say what that took."""
    pixels: dict[int, Pixels] = {}
    found["decoding"] = []
    for px in dict.fromkeys(sides_px):
        pixels[px], decoding = photographs.squares(drawn, images, px)
        found["decoding"].append(asdict(decoding))
        print(decoding, flush=True)
    return pixels


def begins_with(name: str, patterns: Sequence[str] | None) -> bool:
    """Return whether a row is asked for: its name begins with a pattern, part by part (r/64 is not r/640)."""
    return not patterns or any(f"{name}/".startswith(f"{pattern}/") for pattern in patterns)


def command() -> str:
    """Return what was typed, for the foot of a table."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
