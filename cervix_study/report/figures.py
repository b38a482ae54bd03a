"""The study's pictures, in the look of the site's report: a start has one colour and one dash in all of them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from cervix_study.analysis.comparing import HypothesisTest
from cervix_study.analysis.findings import Curve, FractionPoint, Scores
from cervix_study.evidence.calibration import Calibration
from site_agent.report.figures import (
    DASHED,
    DOTTED,
    NO_DIFFERENCE,
    QUIET,
    SETTINGS,
    WIDTH_IN,
    Dot,
    Stroke,
    drawing,
    forest,
    roc_axes,
    short,
    strokes,
    svg,
)
from site_agent.starts import title

VERDICT_COLOURS = {"better": "#00684c", "close": "#00684c", "worse": "#a84300", "not shown": QUIET}


def of_starts(starts: Sequence[str]) -> dict[str, Stroke]:
    """Return a stroke for each start, by its title; the same in every figure of a report, given the study's starts."""
    return strokes([title(start) for start in starts])


def roc_panel(scores: Sequence[Scores], by_start: dict[str, Stroke]) -> str:
    """Return Fig. 2 for one institution: a curve per initialisation, its AUC in the legend."""
    with drawing(WIDTH_IN) as (figure, axes):
        roc_axes(axes)
        for found in scores:
            drawn = by_start[title(found.start)]
            x, y = zip(*found.roc, strict=True)
            label = f"{found.measures['auc'].value:.3f}  {short(found.label)}"
            axes.plot(x, y, color=drawn.colour, linestyle=drawn.dash, label=label)
        axes.legend(loc="lower right", title="AUC and start", alignment="left", fontsize=9.5, handlelength=3)
        return svg(figure)


def auc_dots(scores: Sequence[Scores], by_start: dict[str, Stroke]) -> str:
    """Return every row's AUC as a dot with its interval; single seeds or folds as small marks."""
    rows = [
        Dot(
            found.label,
            found.measures["auc"],
            by_start[title(found.start)].colour,
            single=found.spread["auc"].values if found.spread_over != "nothing" else (),
        )
        for found in scores
    ]
    return forest(rows, "AUC", {"x": 0.5, **DOTTED})


def effect_dots(comparisons: Sequence[HypothesisTest]) -> str:
    """Return differences in AUC as dots with intervals; filled and coloured where a difference was shown."""
    effects = [(f"{found.first} − {found.second}", found.effects["auc"]) for found in comparisons]
    rows = [
        Dot(name, effect.difference, VERDICT_COLOURS[effect.verdict], filled=effect.verdict != "not shown")
        for name, effect in effects
    ]
    return forest(rows, "difference in AUC", NO_DIFFERENCE)


def curves(found: Sequence[Curve], by_start: dict[str, Stroke], *, ylabel: str, line: float | None = None) -> str:
    """Return validation losses (thick: the first training; thin: the others) with a dot at the epoch that was kept."""
    with drawing(3.9) as (figure, axes):
        named: set[str] = set()
        for curve in found:
            if not curve.valid:
                continue
            first = curve.name not in named
            named.add(curve.name)
            _curve(axes, curve, by_start[curve.name], first=first)
        if line is not None:
            axes.axhline(line, **DASHED, label="collapsed")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel=ylabel)
        figure.legend(loc="outside lower left", ncols=3, handlelength=2.6)
        return svg(figure)


def _curve(axes: Axes, curve: Curve, drawn: Stroke, *, first: bool) -> None:
    x, y = zip(*curve.valid, strict=True)
    width, alpha, label = (2.4, None, short(curve.name)) if first else (0.9, 0.6, None)
    axes.plot(x, y, color=drawn.colour, linestyle=drawn.dash, linewidth=width, alpha=alpha, label=label)
    kept = [(a, b) for a, b in curve.valid if a == curve.kept]
    if kept and first:
        axes.plot(*kept[0], "o", color=drawn.colour, markersize=6.5)


def fraction_curves(points: Sequence[FractionPoint], by_start: dict[str, Stroke]) -> str:
    """Return AUC over the share of labels, a line per start with its intervals, each a little aside of the others."""
    with drawing(4.2) as (figure, axes):
        names = list(dict.fromkeys(point.label for point in points))
        for place, name in enumerate(names):
            own = [point for point in points if point.label == name]
            apart = 1.035 ** (place - (len(names) - 1) / 2)
            x = [100 * point.label_fraction * apart for point in own]
            ends = [p.auc.interval or (p.auc.value, p.auc.value) for p in own]
            below = [p.auc.value - low for p, (low, _) in zip(own, ends, strict=True)]
            above = [high - p.auc.value for p, (_, high) in zip(own, ends, strict=True)]
            drawn = by_start[name]
            axes.errorbar(
                x,
                [p.auc.value for p in own],
                yerr=[below, above],
                color=drawn.colour,
                elinewidth=1.2,
                capsize=2,
                linestyle=drawn.dash,
                marker="o",
                markersize=4.5,
                label=short(name),
            )
        shares = sorted({100 * point.label_fraction for point in points})
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(shares))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
        axes.axhline(0.5, **DOTTED)
        axes.set(xlabel="labelled training women used", ylabel="AUC")
        figure.legend(loc="outside lower left", ncols=3, handlelength=2.6)
        return svg(figure)


def reliability(found: Sequence[tuple[str, Calibration]], colours: Sequence[Stroke]) -> str:
    """Return reliability diagrams, two in a row: share of cases over mean probability, a dot per bin."""
    rows = (len(found) + 1) // 2
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, 0.4 + 2.35 * rows), layout="constrained")
        for place, ((name, calibration), drawn) in enumerate(zip(found, colours, strict=True)):
            axes = figure.add_subplot(rows, 2, place + 1)
            axes.plot([0, 1], [0, 1], **DOTTED)
            for bin_ in calibration.bins:
                share = bin_.share_of_cases
                if share.interval:
                    axes.plot([bin_.mean_probability] * 2, share.interval, color=drawn.colour, linewidth=1.2, alpha=0.7)
                size = 12 + 260 * bin_.images / calibration.images
                axes.scatter(
                    bin_.mean_probability, share.value, s=size, color=drawn.colour, edgecolors="white", linewidths=0.6
                )
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axes.set_title(short(name), fontsize=10.5)
            axes.set_aspect("equal")
        figure.supxlabel("mean probability of case", fontsize=11)
        figure.supylabel("share of cases", fontsize=11)
        return svg(figure)
