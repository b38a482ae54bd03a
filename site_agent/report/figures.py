"""Pictures as data URIs: curves as SVG, photographs as PNG. Nothing is fetched, nothing runs in the browser.

Colours are Okabe and Ito's, which people with any colour vision tell apart; every curve also has a dash of its own,
so that a black-and-white print still reads. Sizes are such that letters stay legible on a telephone.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageOps

from site_agent.classifier.evaluate import Comparison, Evaluation
from site_agent.classifier.intervals import Estimate
from site_agent.report.answer import number
from site_agent.report.content import Augmented, EmbeddingMap, Losses, Neighbours, RgbImage, RoundRow


class Style(TypedDict, total=False):
    """Of a line, as matplotlib takes it."""

    x: float
    """of one that stands upright"""
    color: str
    linewidth: float
    linestyle: tuple[int, tuple[float, ...]]


class Mark(TypedDict, total=False):
    """Of the points of a map, as matplotlib takes it."""

    marker: str
    s: float
    """area, in square points"""
    color: str
    facecolors: str
    edgecolors: str
    linewidths: float


INK = "#1f2933"
QUIET = "#6b7785"
GRID = "#dde3e9"
SETTINGS: Any = {
    "svg.fonttype": "path",  # letters are drawn: no font of the reader's machine is needed
    "svg.hashsalt": "fedcervix",  # equal reports are equal bytes
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 2.0,
}


@dataclass(frozen=True, slots=True)
class Stroke:
    """How one initialisation is drawn, in every figure of a report."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]]


DOTTED: Style = {"color": QUIET, "linewidth": 1, "linestyle": (0, (2, 3))}
"""guessing"""
DASHED: Style = {"color": INK, "linewidth": 1, "linestyle": (0, (5, 3))}
"""where nothing was learned"""
GUESSING: Style = {"x": 0.5, **DOTTED}
NO_DIFFERENCE: Style = {"x": 0, "color": INK, "linewidth": 1}

STROKES: dict[str, Stroke] = {
    "Random": Stroke("#7f7f7f", (0, (1, 1.2))),
    "ImageNet": Stroke("#e69f00", (0, (4, 1.5))),
    "SSL": Stroke("#0072b2", (0, (6, 1.5, 1, 1.5))),
    "CSSL": Stroke("#56b4e9", (0, (3, 1, 1, 1, 1, 1))),
    "CSFSSL": Stroke("#d55e00", "solid"),
    "PPFSSL": Stroke("#009e73", "solid"),
}
SPARE = (Stroke("#cc79a7", (0, (5, 2))), Stroke("#000000", (0, (2, 2))), Stroke("#a08c00", (0, (7, 2, 2, 2))))

MARKS: tuple[tuple[str, int | None, Mark], ...] = (
    ("unlabelled", None, {"marker": ".", "s": 44, "color": "#a3adb8", "linewidths": 0}),
    ("control", 0, {"marker": "o", "s": 26, "facecolors": "none", "edgecolors": "#0072b2", "linewidths": 1.3}),
    ("case", 1, {"marker": "^", "s": 46, "color": "#d55e00", "edgecolors": "white", "linewidths": 0.5}),
)
"""How an image is marked on a map, the rarest on top; dot, ring and triangle tell them apart without colour."""

WIDTH_IN = 5.2
NAME_CHARS_MAX = 28
THUMBNAIL_PX = 112
GAP_PX = 4
ORIGINAL_GAP_PX = 14
"""between the originals and their versions"""


def strokes(names: Sequence[str]) -> dict[str, Stroke]:
    """Return a stroke for each name, no two alike: its own, its family's (PPFSSL for PPFSSL_NHS), or a spare one."""
    spare = itertools.cycle(SPARE)
    drawn: dict[str, Stroke] = {}
    for name in names:
        own = STROKES.get(name) or STROKES.get(re.split("[ _]", name)[0])
        if name not in drawn:
            drawn[name] = own if own and own not in drawn.values() else next(spare)
    return drawn


@contextlib.contextmanager
def drawing(height_in: float, settings: Any = SETTINGS) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure in the look of all reports, and its axes."""
    with mpl.rc_context(settings):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        yield figure, figure.add_subplot()


def roc_axes(axes: Axes) -> None:
    """Set the axes of ROC curves, with the dotted line of guessing."""
    axes.plot([0, 1], [0, 1], **DOTTED)
    false_alarms, found = "controls called case (1 − specificity)", "cases found (recall)"
    axes.set(xlabel=false_alarms, ylabel=found, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


def roc_curves(evaluations: Sequence[Evaluation]) -> str:
    """Return Fig. 2 for one site: a curve per initialisation, AUC in the legend, a dot where .5 is the threshold."""
    with drawing(5.2) as (figure, axes):
        roc_axes(axes)
        by_name = strokes([found.name for found in evaluations])
        for found in evaluations:
            drawn = by_name[found.name]
            x, y = zip(*found.roc, strict=True)
            label = f"{short(found.name)}  {number(found.auc.value, found.women)}"
            axes.plot(x, y, color=drawn.colour, linestyle=drawn.dash, label=label)
            counts = found.fixed.confusion
            controls = counts.fp + counts.tn
            axes.plot(counts.fp / controls, counts.recall, "o", color=drawn.colour, markersize=6.5)
        axes.legend(loc="lower right", title="start and AUC", alignment="left")
        return svg(figure)


def auc_intervals(evaluations: Sequence[Evaluation]) -> str:
    """Return every AUC as a dot with its 95 % interval."""
    by_name = strokes([found.name for found in evaluations])
    rows = [Dot(found.name, found.auc, by_name[found.name].colour) for found in evaluations]
    return forest(rows, "AUC", GUESSING, reach=(0.4, 1.0))


def differences(comparisons: Sequence[Comparison]) -> str:
    """Return every difference of AUC as a dot with its 95 % interval, beside the line of no difference."""
    by_name = strokes([found.versus for found in comparisons])
    rows = [Dot(f"{c.name} − {c.versus}", c.difference, by_name[c.versus].colour) for c in comparisons]
    return forest(rows, "difference in AUC", NO_DIFFERENCE)


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of a forest plot."""

    name: str
    estimate: Estimate
    colour: str
    filled: bool = True
    single: tuple[float, ...] = ()
    """small marks beside the dot, of single trainings"""


def forest(
    rows: Sequence[Dot], label: str, line: Style | None = None, reach: tuple[float, float] = (math.inf, -math.inf)
) -> str:
    """Return a row for each number: a dot, and its interval where it has one; `line` stands upright.

    The axis covers at least `reach`: a small difference is to look small.
    """
    with drawing(0.9 + 0.42 * len(rows)) as (figure, axes):
        for height, row in enumerate(reversed(rows)):
            if row.estimate.interval:
                axes.plot(row.estimate.interval, [height, height], color=row.colour, linewidth=2.5)
            face = row.colour if row.filled else "white"
            axes.plot(row.estimate.value, height, "o", color=row.colour, markerfacecolor=face, markersize=7.5)
            axes.plot(row.single, [height + 0.22] * len(row.single), "|", color=row.colour, markersize=6)
        if line:
            axes.axvline(**line)
        axes.set_yticks(range(len(rows)), [short(row.name) for row in reversed(rows)])
        axes.set(xlabel=f"{label}{interval_label(row.estimate for row in rows)}", ylim=(-0.6, len(rows) - 0.4))
        left, right = axes.get_xlim()
        axes.set_xlim(min(left, reach[0]), max(right, reach[1]))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        return svg(figure)


def interval_label(found: Iterable[Estimate]) -> str:
    """Return what the axis of a figure says of its intervals: nothing where there is none."""
    return " (95 % interval)" if any(estimate.interval for estimate in found) else ""


def loss_curves(histories: Sequence[Losses], *, title: str, line: float | None = None) -> str:
    """Return training (thin) and validation (thick) losses; `line` is the loss of a collapsed model."""
    with drawing(3.9) as (figure, axes):
        by_name = strokes([history.name for history in histories])
        for history in histories:
            drawn = by_name[history.name]
            marker = "o" if len(history.train) == 1 else None  # a line needs two points
            draw = functools.partial(axes.plot, color=drawn.colour, linestyle=drawn.dash, marker=marker)
            for losses, width in ((history.train, 1.1), (history.valid, 2.4)):
                draw(range(1, len(losses) + 1), losses, linewidth=width)
            draw([], [], linewidth=2.4, label=short(history.name))  # one entry in the legend for both
        if line is not None:
            axes.axhline(line, **DASHED, label=f"collapsed ({line:.2f})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(xlabel="epoch", ylabel="loss", title=title)
        figure.legend(loc="outside lower left", ncols=3)
        return svg(figure)


def neighbour_curves(histories: Sequence[Neighbours]) -> str:
    """Return the AUC of the nearest neighbours by epoch, beside the line of guessing; a dot marks the kept epoch."""
    with drawing(3.9) as (figure, axes):
        by_name = strokes([history.name for history in histories])
        for history in histories:
            drawn = by_name[history.name]
            y = [math.nan if auc is None else auc for auc in history.aucs]
            dots = [history.kept_epoch - 1] if history.kept_epoch else []
            draw = functools.partial(axes.plot, color=drawn.colour, linestyle=drawn.dash, label=short(history.name))
            draw(range(1, len(y) + 1), y, marker="o", markersize=7.5, markevery=dots)
        axes.axhline(0.5, **DASHED, label="guessing (0.50)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        low, high = axes.get_ylim()  # at least from .4 to .8: a small change is to look small
        axes.set(
            xlabel="epoch", ylabel="AUC", title="Do neighbours share a label?", ylim=(min(low, 0.4), max(high, 0.8))
        )
        figure.legend(loc="outside lower left", ncols=3)
        return svg(figure)


def embedding_map(drawn: EmbeddingMap) -> str:
    """Return one model's map: a mark per image, without axes, because places and directions mean nothing."""
    framed = {**SETTINGS, "axes.spines.top": True, "axes.spines.right": True, "axes.edgecolor": GRID}
    with drawing(5.4, framed) as (figure, axes):
        crowding = min(1.0, (300 / max(1, len(drawn.points))) ** 0.5)  # many marks are drawn smaller
        for name, label, style in MARKS:
            places = [place for place, own in zip(drawn.points, drawn.labels, strict=True) if own == label]
            if places:
                sized: Mark = {**style, "s": style["s"] * crowding}
                x, y = zip(*places, strict=True)
                axes.scatter(x, y, label=f"{name} ({len(places):,})", **sized)
        axes.set(xticks=[], yticks=[], title=short(drawn.model[:1].upper() + drawn.model[1:]))
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.04)
        figure.legend(loc="outside lower left", ncols=3, handletextpad=0.2, columnspacing=1.2)
        return svg(figure)


def round_losses(rounds: Sequence[RoundRow], *, line: float | None) -> str:
    """Return the federation's mean validation loss by round."""
    scored = [(turn.number, turn.mean_loss) for turn in rounds if turn.mean_loss is not None]
    with drawing(3.3) as (figure, axes):
        axes.plot([x for x, _ in scored], [y for _, y in scored], "o-", color=STROKES["CSFSSL"].colour, markersize=4)
        if line is not None:
            axes.axhline(line, **DASHED, label=f"collapsed ({line:.2f})")
            axes.legend(loc="best")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(xlabel="round", ylabel="mean loss of the sites", title="Federated model, validation images")
        return svg(figure)


def contact_sheet(sheet: Sequence[Augmented]) -> str:
    """Return `contact_canvas` as a PNG."""
    return png(contact_canvas(sheet))


def png(picture: Image.Image) -> str:
    """Return a picture as a data URI."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return _data_uri("image/png", file.getvalue())


def contact_canvas(sheet: Sequence[Augmented]) -> Image.Image:
    """Return the contact sheet: a row per image, the original first."""
    versions = max(len(row.versions) for row in sheet)
    side = THUMBNAIL_PX + GAP_PX
    left = THUMBNAIL_PX + ORIGINAL_GAP_PX
    canvas = Image.new("RGB", (left + versions * side, len(sheet) * side), "white")
    for y, row in enumerate(sheet):
        canvas.paste(_thumbnail(row.original), (0, y * side))
        for x, picture in enumerate(row.versions):
            canvas.paste(_thumbnail(picture), (left + x * side, y * side))
    return canvas


def short(name: str) -> str:
    """Return a name that leaves room for the curves."""
    return name if len(name) <= NAME_CHARS_MAX else f"{name[: NAME_CHARS_MAX - 1]}…"


def _thumbnail(picture: RgbImage) -> Image.Image:
    return ImageOps.fit(Image.fromarray(np.ascontiguousarray(picture)), (THUMBNAIL_PX, THUMBNAIL_PX))


def svg(figure: Figure) -> str:
    """Return a figure as a data URI: the same figure is the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return _data_uri("image/svg+xml", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
