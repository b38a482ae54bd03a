"""How fast is contrastive training? Ours, against lightly's SimCLR and against the bare step.

    python benchmarks/trainer.py [--quick] [--json FILE] [--rows resnet18/64 ...] [--precision bfloat16] [--paper]

The sides, which take turns in one process, with the same threads, network, head, batch, precision and SGD:

    ours      site_agent.training.loop.train_epochs, one epoch to a turn, on images decoded once. Both views are
              augmented, as lightly does (the paper augments one, which is less work).
    bare      forward, loss, backward, optimiser on one tensor that is in its place: the limit. Same encoder, loss,
              memory format and determinism as ours.
    lightly   its LightlyDataset, SimCLRTransform, ProjectionHead and NTXentLoss in the loop of its documentation, on
              the folder of 2-megapixel JPEG files; worker count and memory format chosen in its favour, row by row
              (at large batches: as at the next smaller one); without our determinism. "Contiguous" is the memory
              format of its documentation, timed while it was tuned. It shares our side's memory allocator.

A turn of `ours` holds all that an epoch does, also its gauges. A row is ARCHITECTURE/PX/N; a batch has 2N views.
On CUDA ours and the bare step run eager and as a graph, ours also compiled, and arithmetic and memory traffic are
told (an estimate: see limits.py). A second table holds what one gets without touching anything against each other.
`--paper` instead runs the paper's whole contrastive training on generated images.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import command_line
from benchmarks.command_line import PRECISIONS, Timing, begins_with, command
from benchmarks.limits import HEADROOM, Work, copy_bytes_per_s, free_bytes, matmul_flops_per_s, work
from benchmarks.loaders import Choice, best_choice, worker_counts
from benchmarks.photographs import Pixels
from benchmarks.sides import (
    Side,
    cores,
    in_turn,
    medians,
    overhead,
    pace,
    ratio,
    seconds,
    steps_for,
    table,
    turns_for,
    warmed,
    why_not,
    write,
)
from benchmarks.simclr_sides import (
    PAPER_EPOCHS,
    PAPER_IMAGES,
    SEED,
    Row,
    bare,
    bare_forward,
    lightly,
    ours,
    paper_training,
)
from fedcervix.core.plan import Architecture
from fedcervix.errors import TrainingError
from site_agent.network.devices import Acceleration, choose, place
from site_agent.network.encoder import build_encoder
from site_agent.network.precision import FASTER_FROM

SHAPES: tuple[tuple[Architecture, int], ...] = (
    ("resnet18", 64),
    ("resnet18", 128),
    ("resnet50", 224),
    ("efficientnet_lite0", 128),
)
BATCHES = (8, 32, 256)
QUICK = ("resnet18/64/8", "resnet18/64/32")
ROW_S = 45.0
"""more than the fewest turns are taken while a row takes no longer than this"""
PROBE_N = 8
"""the batch of which one step tells what a row will take"""
TUNE_BELOW_S = 4.0
"""where a burst of lightly's batches takes longer, it is set up as at the next smaller batch"""

LIGHTLY = "lightly"
GIGA = 1e9


@dataclass(slots=True)
class Group:
    """What is known of the rows of a group before they are measured."""

    work: Work
    bare_views_per_s: float
    choice: Choice | None = None
    tuned_at_n: int = 0
    tried: dict[str, float] = field(default_factory=dict)

    @property
    def as_documented_views_per_s(self) -> float:
        """Lightly's loop with the memory format of its documentation, while it was tuned; the best worker count."""
        assert self.choice is not None
        return self.tried[str(Choice(self.choice.workers, channels_last=False))]

    @property
    def lightly_views_per_s(self) -> float:
        """A guess before it is tuned: half of the bare step."""
        return max(self.tried.values(), default=self.bare_views_per_s / 2)


@dataclass(frozen=True, slots=True)
class Bench:
    """How this run measures."""

    device: torch.device
    files: Path
    pixels: dict[int, Pixels]
    accelerations: tuple[Acceleration, ...]
    workers: list[int]
    timing: Timing
    row_limit_s: float
    with_lightly: bool = True

    @property
    def headline(self) -> Acceleration:
        """How our trainer runs by default here."""
        return "graph" if "graph" in self.accelerations else self.accelerations[0]

    @property
    def epoch_images_most(self) -> int:
        """Of one turn of ours: what may lie in memory."""
        return 1024 if self.device.type == "cpu" else 4096


def probe(row: Row, device: torch.device) -> Group:
    """Find out what a view costs, at a small batch."""
    small = Row(row.architecture, row.px, PROBE_N, row.precision)
    encoder = build_encoder(small.recipe, SEED).train()
    place(encoder, device)
    cost = work(bare_forward(encoder, small, device), small.views)
    return Group(cost, small.views / warmed(bare(small, device, "eager"), device))


def tune(row: Row, group: Group, bench: Bench) -> None:
    """Choose worker count and memory format in lightly's favour, unless that takes too long at this batch."""
    if group.choice is not None and group.choice.burst * row.views / group.lightly_views_per_s > TUNE_BELOW_S:
        return

    def rate(choice: Choice) -> float:
        with lightly(row, bench.files, choice, bench.device) as run:
            run(choice.burst)
            return row.views * pace(run, choice.burst, bench.timing.turn_s)

    group.choice, group.tried = best_choice(rate, bench.workers)
    group.tuned_at_n = row.n


def predicted_s(row: Row, group: Group, bench: Bench) -> float:
    """Return the least that a row takes: a warm-up step and the fewest turns of one step on every side."""
    burst = group.choice.burst if group.choice else 2
    own = len(own_sides(bench)) * row.views / group.bare_views_per_s
    return (1 + bench.timing.turns_fewest) * (own + burst * row.views / group.lightly_views_per_s)


def own_sides(bench: Bench) -> list[tuple[str, Acceleration]]:
    """Return ("ours" or "bare", acceleration) of all sides but lightly; the bare step is not compiled."""
    return [("ours", a) for a in bench.accelerations] + [("bare", a) for a in bench.accelerations if a != "compile"]


def needs_bytes(row: Row, group: Group) -> float:
    """Return the memory of one side's step."""
    return HEADROOM * row.views * group.work.kept_bytes


Maker = Callable[[ExitStack], Side]


def makers(row: Row, group: Group, bench: Bench) -> list[Maker]:
    """Return what sets the sides up, warms them and says how many steps make a turn."""

    def own(kind: str, acceleration: Acceleration) -> Maker:
        def make(_stack: ExitStack) -> Side:
            run = (
                ours(row, bench.pixels[row.px], bench.device, acceleration)
                if kind == "ours"
                else bare(row, bench.device, acceleration)
            )
            most = max(1, bench.epoch_images_most // row.n)
            steps = steps_for(warmed(run, bench.device), bench.timing.turn_s, most=most)
            if bench.device.type == "cuda":
                run(steps)  # its images go to the GPU before the first turn
            return Side(f"{kind} {acceleration}", run, row.views, steps)

        return make

    def other(stack: ExitStack) -> Side:
        assert group.choice is not None
        run = stack.enter_context(lightly(row, bench.files, group.choice, bench.device))
        burst = group.choice.burst
        step_s = seconds(run, burst) / burst  # waits for the workers' first images: an upper bound
        step_s = min(step_s, row.views / group.lightly_views_per_s)
        return Side(LIGHTLY, run, row.views, steps_for(step_s, bench.timing.turn_s, multiple=burst))

    return [*(own(*side) for side in own_sides(bench)), *([other] if bench.with_lightly else [])]


def measure(row: Row, group: Group, bench: Bench) -> dict[str, Any]:
    """Measure one row, or say why not."""
    about = {"row": row.name, **asdict(row), "work_per_view": asdict(group.work)}
    free = free_bytes(bench.device)
    reason = why_not(predicted_s(row, group, bench), bench.row_limit_s, needs_bytes(row, group), free)
    if reason:
        return {**about, "skipped": reason}
    try:
        if bench.with_lightly:
            tune(row, group, bench)
        sides, rates = _rates(row, group, bench, free)
    except (torch.OutOfMemoryError, TrainingError) as error:
        return {**about, "skipped": f"{str(error).splitlines()[0]}"}
    return {**about, "skipped": None, **figures(group, bench, rates), "steps_per_turn": sides}


def _rates(row: Row, group: Group, bench: Bench, free: float) -> tuple[dict[str, int], dict[str, list[float]]]:
    """Let the sides take turns; where their graphs do not fit into memory together, one side after the other."""
    all_makers = makers(row, group, bench)
    graphs = sum(acceleration == "graph" for _kind, acceleration in own_sides(bench))
    together = (1 + graphs) * needs_bytes(row, group) <= free
    steps: dict[str, int] = {}
    rates: dict[str, list[float]] = {}
    for some in [all_makers] if together else [[maker] for maker in all_makers]:
        with ExitStack() as stack:
            sides = [make(stack) for make in some]
            round_s = sum(side.steps * side.items / group.bare_views_per_s for side in sides)
            turns = (
                turns_for(round_s, ROW_S, bench.timing.turns_fewest, bench.timing.turns_most)
                if together
                else bench.timing.turns_fewest
            )
            rates |= in_turn(sides, turns)
            steps |= {side.name: side.steps for side in sides}
            del sides
        _free(bench.device)
    return steps, rates


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def figures(group: Group, bench: Bench, rates: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians and ratios of one row."""
    mine = f"ours {bench.headline}"
    middle = medians(rates)
    return {
        "views_per_s": middle,
        "each_turn": rates,
        "turns": len(rates[mine]),
        "data_path": {a: overhead(rates, f"ours {a}", f"bare {a}") for kind, a in own_sides(bench) if kind == "bare"},
        **(_beside_lightly(group, rates, mine) if bench.with_lightly else {}),
        "flops_per_s": {name: rate * group.work.flops for name, rate in middle.items()},
        "moved_bytes_per_s": {name: rate * group.work.moved_bytes for name, rate in middle.items()},
    }


def _beside_lightly(group: Group, rates: dict[str, list[float]], mine: str) -> dict[str, Any]:
    chosen = {"choice": str(group.choice), "as_documented": group.as_documented_views_per_s}
    tuned = {"tuned_at_n": group.tuned_at_n, "tried": group.tried}
    return {"times_lightly": ratio(rates, mine, LIGHTLY), "lightly": chosen | tuned}


def rows_asked(patterns: Sequence[str] | None, precision: str | None, *, quick: bool) -> list[Row]:
    """Return the rows that were asked for."""
    wanted = patterns or (QUICK if quick else None)
    return [
        row
        for (architecture, px), kind in ((shape, kind) for shape in SHAPES for kind in PRECISIONS)
        for row in (Row(architecture, px, n, kind) for n in BATCHES)
        if precision in (None, kind) and begins_with(row.name, wanted)
    ]


def columns(found: dict[str, Any], bench: Bench) -> list[str]:
    """Return one row of the table."""
    start = [found["row"], found["precision"]]
    if found["skipped"]:
        return [*start, "not run"]
    middle = found["views_per_s"]
    cells = [f"{middle[name]:.1f}" for name in _shown(bench)]
    cells += [f"{100 * found['data_path'][_limit(bench)]:+.1f} %"]
    if bench.with_lightly:
        cells += [
            f"{middle[LIGHTLY]:.1f} ({found['lightly']['choice']})",
            f"{found['lightly']['as_documented']:.1f}",
            f"{found['times_lightly']:.2f}",
        ]
    cells += [str(found["turns"])]
    if bench.device.type == "cuda":
        mine = f"ours {bench.headline}"
        cells += [f"{found['flops_per_s'][mine] / 1e12:.1f}", f"{found['moved_bytes_per_s'][mine] / GIGA:.0f}"]
    return start + cells


def head(bench: Bench) -> list[str]:
    """Return the table's head; figures are views per second unless it says otherwise."""
    beside = [LIGHTLY, "contiguous", "ours / lightly"] if bench.with_lightly else []
    titles = ["row", "precision", *_shown(bench), "data path costs", *beside, "turns"]
    return titles + (["TFLOP/s", "GB/s"] if bench.device.type == "cuda" else [])


def as_they_come(rows: Sequence[dict[str, Any]], mine: str) -> list[list[str]]:
    """Return lines of the second table: ours in the precision that `auto` takes here, lightly as documented.

    `rows` are what `measure` found; those measured in one precision only tell nothing of that.
    """
    lines = []
    for name in dict.fromkeys(row["row"] for row in rows):
        found = {row["precision"]: row for row in rows if row["row"] == name and not row["skipped"]}
        if len(found) < len(PRECISIONS):
            continue
        rate = {precision: row["views_per_s"][mine] for precision, row in found.items()}
        precision = "bfloat16" if rate["bfloat16"] >= FASTER_FROM * rate["float32"] else "float32"
        theirs = found["float32"]["lightly"]["as_documented"]
        lines.append([name, f"{rate[precision]:.1f} ({precision})", f"{theirs:.1f}", f"{rate[precision] / theirs:.2f}"])
    return lines


def _shown(bench: Bench) -> list[str]:
    return [f"{kind} {acceleration}" for kind, acceleration in own_sides(bench)]


def _limit(bench: Bench) -> str:
    return bench.headline if bench.headline != "compile" else "eager"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--accelerations", nargs="+", choices=("eager", "graph", "compile"), help="of our step")
    parser.add_argument("--row-seconds", type=float, default=300.0, help="a row that would take longer is left out")
    parser.add_argument("--alone", action="store_true", help="ours and the bare step, without lightly")
    parser.add_argument("--paper", action="store_true", help="instead: the paper's whole contrastive training")
    asked = parser.parse_args(given)
    if asked.paper and choose(asked.device).type == "cpu":
        parser.error("--paper needs a GPU: on a CPU it takes days")
    return asked


def main() -> None:
    """Measure and print."""
    asked = arguments()
    if not asked.alone:
        _check_lightly()
    device, found = command_line.begin("trainer", asked)
    rows = rows_asked(asked.rows, asked.precision, quick=asked.quick)
    if asked.paper:
        rows = [Row("resnet50", 224, n, asked.precision or "bfloat16") for n in (8, 256)]
    with tempfile.TemporaryDirectory() as folder:
        drawn = command_line.draw(asked, Path(folder) / "nhs", found)
        pixels = command_line.squares(drawn, drawn.collection.images, [row.px for row in rows], found)
        usual: tuple[Acceleration, ...] = ("eager", "graph", "compile") if device.type == "cuda" else ("eager",)
        bench = Bench(
            device=device,
            files=drawn.files,
            pixels=pixels,
            accelerations=tuple(asked.accelerations or usual),
            workers=worker_counts(cores()),
            timing=command_line.timing(asked),
            row_limit_s=asked.row_seconds,
            with_lightly=not asked.alone,
        )
        (_paper if asked.paper else _rows)(bench, rows, asked.json, found)


def _check_lightly() -> None:
    try:
        import lightly.loss  # noqa: F401
    except ImportError:
        sys.exit("lightly is not installed, and it is what we compare with: pip install --editable '.[site,bench]'")


def _rows(bench: Bench, rows: list[Row], file: Path | None, found: dict[str, Any]) -> None:
    """Measure row by row; print each as it is done, and all of them as one table."""
    found["rows"] = []
    if bench.device.type == "cuda":
        found["machine"] |= _reached_by_simple_kernels(bench.device)
    groups: dict[tuple[str, int, str], Group] = {}
    for row in rows:
        started = time.perf_counter()
        if row.group not in groups:
            groups[row.group] = probe(row, bench.device)
        last = measure(row, groups[row.group], bench)
        found["rows"].append(last)
        write(file, found)
        took = time.perf_counter() - started
        print(f"[{took:.0f} s]", " | ".join([*columns(last, bench), last["skipped"] or ""]), flush=True)
        _free(bench.device)
    print(f"\nViews per second, medians over turns; {command()}\n")
    print(table(head(bench), [columns(row, bench) for row in found["rows"]]))
    if bench.with_lightly and (both := as_they_come(found["rows"], f"ours {bench.headline}")):
        print(
            "\nEither as it comes: ours with precision = auto; lightly in float32, contiguous, its best worker count\n"
        )
        print(table(["row", "ours", LIGHTLY, "ours / lightly"], both))
    for left_out in (row for row in found["rows"] if row["skipped"]):
        print(f"\n{left_out['row']} {left_out['precision']} was not run: {left_out['skipped']}")


def _reached_by_simple_kernels(device: torch.device) -> dict[str, float]:
    """Return what this GPU reaches at copying and at multiplying, to hold the rows against."""
    reached = {
        "copy_bytes_per_s": copy_bytes_per_s(device),
        "matmul_bfloat16_flops_per_s": matmul_flops_per_s(device, torch.bfloat16),
        "matmul_float32_flops_per_s": matmul_flops_per_s(device, torch.float32),
    }
    print(" ".join(f"{name}={value:.3g}" for name, value in reached.items()), flush=True)
    return reached


def _paper(bench: Bench, rows: list[Row], file: Path | None, found: dict[str, Any]) -> None:
    """Run the paper's training once for every row, by every acceleration asked for (default: what we do)."""
    [decoding] = found["decoding"]
    decode_s = PAPER_IMAGES * decoding["first_s"] / decoding["images"]
    print(f"{PAPER_IMAGES} images: decoding them, once, would take {decode_s:.0f} s at this rate", flush=True)
    found["paper"] = []
    for row in rows:
        done = paper_training(bench.pixels[row.px], bench.device, bench.headline, row)
        found["paper"].append({**done, "decode_s": decode_s})
        write(file, found)
        _free(bench.device)
        print(
            f"{row.name} {row.precision} {bench.headline}: {PAPER_EPOCHS} epochs of {PAPER_IMAGES} images in "
            f"{done['seconds']:.0f} s ({done['views_per_s']:.0f} views/s), loss {done['first_loss']:.3f} ->"
            f" {done['last_loss']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
