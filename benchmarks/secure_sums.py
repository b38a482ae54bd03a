"""What a secure sum costs beside a plain average: both in turn, in one run, step by step.

    python -m benchmarks.secure_sums FOLDER [--sites 3 8] [--model ResNet-50] [--turns 7]

Prints the median seconds of each step, and those of processors, which other work changes less; their shares of a
plain average of as many updates; and the most memory that a new process needs for it (an interpreter with numpy is in
it). Above eight sites, files are used again.

    average     what the coordinator does without secure sums
    quantise    a site, after training: fixed point and tag
    mask        the same site: one stream for each of two holders
    release     a holder: one stream for each site
    open        the coordinator: adds up, and subtracts two releases
    check       a site: range and tag of the sum
    derive      the coordinator, and each site: the model of the sum
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.averaging import models
from benchmarks.payloads import RESNET50, SMALL, Payload
from fedcervix.models.aggregate import aggregate
from fedcervix.models.secure_averages import Summed, derive
from fedcervix.models.secure_sums import check_sum, mask, open_sum, release
from fedcervix.models.secure_updates import quantise
from fedcervix.models.weights import read_layout
from fedcervix.runtime.printing import say
from fedcervix.trust.fixed_point import Share
from fedcervix.trust.mask_streams import MaskSecret
from fedcervix.trust.sum_tag import tag_secret

HOLDERS = 2
FILES_MAX = 8
TAG = tag_secret([bytes(32)], b"benchmark")
PAYLOADS = {payload.name: payload for payload in (SMALL, RESNET50, Payload("1 GB", 12))}


def main() -> None:
    """Write the models, and take turns."""
    asked = _arguments()
    count = min(FILES_MAX, max(asked.sites))
    base, updates = models(asked.folder, count, PAYLOADS[asked.model])
    for sites in asked.sites:
        steps = dict(_steps(asked.folder, base, [updates[site % count] for site in range(sites)]))
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for _ in range(asked.turns):
            for name, step in steps.items():
                taken[name].append(_seconds(step))
        middle = {name: tuple(map(statistics.median, zip(*times, strict=True))) for name, times in taken.items()}
        for name, (wall, processor) in middle.items():
            shares = " ".join(
                f"{found / all_:5.2f}" for found, all_ in zip(middle[name], middle["average"], strict=True)
            )
            memory = f"{peak_bytes(steps[name]) / 2**20:.0f} MiB"
            say(f"{sites:3} sites  {name:9} {wall:6.2f} s {processor:6.2f} s of processors  {shares}  {memory:>8}")


def _steps(folder: Path, base: Path, updates: list[Path]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the steps in their order: each uses the files of those before it."""
    layout, share = read_layout(base), Share(1, len(updates))
    yield "average", partial(aggregate, [(path, 1.0) for path in updates], layout, folder / "average", "mean")
    for update in set(updates[1:]):
        quantise(update, base, folder / "q", share, "mean", TAG, round_=2)
        mask(folder / "q", _masked(update), layout, _secrets(update))
    first = updates[0]
    yield "quantise", partial(quantise, first, base, folder / "q", share, "mean", TAG, round_=2)
    yield "mask", partial(mask, folder / "q", _masked(first), layout, _secrets(first))
    releases = [folder / f"release-{holder}" for holder in range(HOLDERS)]
    for holder, path in reversed([*enumerate(releases)]):
        made = partial(release, path, layout, [_secrets(update)[holder] for update in updates])
        made()
    yield "release", made
    total = folder / "sum"
    yield "open", partial(open_sum, [_masked(update) for update in updates], releases, total, layout)
    yield "check", partial(check_sum, total, base, len(updates), TAG)
    yield "derive", partial(derive, total, base, folder / "model", Summed(Share(1, 1), len(updates)), "mean")


def _masked(update: Path) -> Path:
    return update.with_name(f"masked-{update.name}")


def _secrets(update: Path) -> list[MaskSecret]:
    return [MaskSecret(bytes([holder]) * 32, update.name.encode()) for holder in range(HOLDERS)]


def _seconds(step: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a step takes, and those of processors."""
    begun, used = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - begun, time.process_time() - used


def peak_bytes(step: Callable[[], object]) -> int:
    """Return the largest resident memory of a new process that takes a step."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_bytes, (step,))


def _peak_bytes(step: Callable[[], object]) -> int:
    step()
    # Not getrusage: its maximum outlives exec, and would be that of the parent.
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path)
    made.add_argument("--sites", type=int, nargs="+", default=[3, 8])
    made.add_argument("--model", choices=sorted(PAYLOADS), default=RESNET50.name)
    made.add_argument("--turns", type=int, default=7)
    return made.parse_args()


if __name__ == "__main__":
    main()
