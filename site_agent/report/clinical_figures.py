"""The figures of the clinical page. Beside each stands a table with the same numbers."""

from __future__ import annotations

import numpy as np
from PIL import Image

from site_agent.report.clinical import Clinical
from site_agent.report.content import LookedAt
from site_agent.report.figures import DASHED, DOTTED, Stroke, drawing, png, short, svg
from site_agent.report.repeatability import Repeats

CLASSIFIER = Stroke("#d55e00", "solid")
FLOOR = Stroke("#0072b2", (0, (6, 1.5, 1, 1.5)))


def decision_curve(found: Clinical) -> str:
    """Return net benefit by the probability from which one would treat: classifier, floor, treat all, treat none."""
    x = [100 * one.threshold for one in found.decisions]
    lines = (
        (short(found.start), CLASSIFIER, "o", [one.classifier.value for one in found.decisions]),
        ("colour and texture", FLOOR, "s", [one.floor.value for one in found.decisions]),
    )
    with drawing(4.2) as (figure, axes):
        for name, stroke, marker, y in lines:
            points = [100 * value for value in y]
            axes.plot(x, points, color=stroke.colour, linestyle=stroke.dash, marker=marker, markersize=4.5, label=name)
        axes.plot(x, [100 * one.treat_all for one in found.decisions], **DASHED, label="treat every woman")
        axes.plot(x, [0.0] * len(x), **DOTTED, label="treat none")
        top = 100 * found.prevalence
        axes.set(
            xlabel="treat from this probability of disease (%)",
            ylabel="net cases found per 100 women",
            ylim=(-0.4 * top, 1.1 * top),
        )
        figure.legend(loc="outside lower left", ncols=2)
        return svg(figure)


def bland_altman(found: Repeats) -> str:
    """Return every pair: the difference of its scores beside their mean, with the limits of agreement."""
    assert found.agreement is not None
    limits = found.agreement.limits
    with drawing(3.6) as (figure, axes):
        means = [(first + second) / 2 for first, second in found.pairs]
        axes.plot(means, [second - first for first, second in found.pairs], "o", color=FLOOR.colour, markersize=4.5)
        for value, style, name in (
            (limits.high.value, DASHED, "limits of agreement"),
            (limits.mean.value, DOTTED, "mean difference"),
            (limits.low.value, DASHED, None),
        ):
            axes.axhline(value, **style, label=name)
        reach = max(1.15 * max(abs(limits.high.value), abs(limits.low.value)), 0.1)
        axes.set(
            xlabel="mean probability of the two pictures",
            ylabel="second less first",
            xlim=(-0.02, 1.02),
            ylim=(-reach, reach),
        )
        figure.legend(loc="outside lower left", ncols=2)
        return svg(figure)


def side_by_side(look: LookedAt) -> str:
    """Return a picture and its heat as one PNG."""
    return png(Image.fromarray(np.ascontiguousarray(np.concatenate([look.picture, look.heat], axis=1))))
