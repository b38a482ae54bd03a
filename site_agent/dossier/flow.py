"""What goes where: the data-flow diagram, as SVG."""

from __future__ import annotations

from xml.sax.saxutils import escape

from fedcervix.core.plan import Terms
from site_agent.dossier.facts import Facts

WIDTH, HEIGHT = 960, 400
INK, QUIET, SOFT, ACCENT = "#1f2933", "#52606d", "#f3f5f8", "#0072b2"
PARTNERS_SHOWN = 6
OPEN = "model weights"
TIP = (
    '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    f'<path d="M0 0L10 5L0 10z" fill="{ACCENT}"/></marker>'
)
"""of an arrow"""


def flow(facts: Facts) -> str:
    """Return the picture: the site, the coordinator, the other sites, and what passes between them."""
    models = sorted({_leaves(run.plan.terms) for run in facts.runs} or {OPEN})
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, Arial, sans-serif" role="img">',
        "<title>Which data go where</title>",
        f"<defs>{TIP}</defs>",
        *_box(10, 20, 340, 360, f"Hospital: {facts.site}", (), SOFT),
        *_box(
            30,
            60,
            300,
            75,
            "Images, manifest, labels",
            ("read on this site's machines only", "never leave this hospital"),
        ),
        *_box(30, 200, 300, 60, "Worker", ("trains; its results go to the agent",)),
        *_box(
            30, 300, 300, 72, "Agent", ("connects out; listens to nobody", "writes down what leaves before it leaves")
        ),
        *_arrow((180, 135), (180, 198)),
        *_arrow((180, 260), (180, 298)),
        *_box(640, 60, 300, 90, "Coordinator", (facts.coordinator or "not named yet", "has no images")),
        *_box(640, 270, 300, 90, "Other sites", _partners(facts)),
        *_arrow((332, 332), (638, 135)),
        *_lines(400, 335, (*models, "counts, losses, signed reports")),
        *_arrow((638, 90), (352, 90)),
        *_lines(495, 78, ("models, plan, signed ledger",), anchor="middle"),
        *_arrow((740, 152), (740, 268)),
        *_arrow((840, 268), (840, 152)),
        *_lines(790, 205, ("models, plan,", "signed ledger"), anchor="middle"),
        "</svg>",
    ]
    return "\n".join(parts)


def _leaves(terms: Terms) -> str:
    """Return as what a model of a run goes to the coordinator."""
    if terms.secure_sum:
        return "masked weights (secure sums)"
    return "encrypted weights (sealed ring)" if terms.sealed else OPEN


def _partners(facts: Facts) -> tuple[str, ...]:
    names = facts.partners
    more = f"and {len(names) - PARTNERS_SHOWN} more" if len(names) > PARTNERS_SHOWN else ""
    shown = ", ".join(names[:PARTNERS_SHOWN])
    return tuple(filter(None, (shown or "none known yet", more, "each as this hospital")))


def _box(x: int, y: int, width: int, height: int, title: str, lines: tuple[str, ...], fill: str = "#fff") -> list[str]:
    return [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{QUIET}"/>',
        _text(x + 14, y + 24, title, f'font-weight="600" font-size="14" fill="{INK}"'),
        *_lines(x + 14, y + 44, lines, QUIET),
    ]


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> list[str]:
    (x1, y1), (x2, y2) = start, end
    place = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
    return [f'<line {place} stroke="{ACCENT}" stroke-width="1.5" marker-end="url(#tip)"/>']


def _lines(x: int, y: int, lines: tuple[str, ...], colour: str = ACCENT, anchor: str = "start") -> list[str]:
    style = f'text-anchor="{anchor}" font-size="13" fill="{colour}"'
    return [_text(x, y + 18 * number, line, style) for number, line in enumerate(lines)]


def _text(x: int, y: int, text: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'
