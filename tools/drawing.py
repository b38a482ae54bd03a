"""Pictures as SVG: text with few digits, so that a change of the code is a short difference of the picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

FONT = "-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
INK = "#1f2933"
QUIET = "#5b6672"
PAPER = "#ffffff"
BAND = "#f4f6f8"
LINE = "#8795a1"
HUES = {
    "fedcervix": ("#e6f4ea", "#3c8a57"),
    "coordinator": ("#fdf0dc", "#b7791f"),
    "site_agent": ("#e3eefb", "#2f6fb3"),
    "cervix_study": ("#f1e8fa", "#7b4bab"),
}
"""package -> the fill and the edge of its boxes"""


@dataclass(slots=True)
class Drawing:
    """An SVG picture of a width and a height in pixels. What is added later lies above."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def rectangle(self, x: float, y: float, width: float, height: float, *, fill: str, stroke: str = "none") -> None:
        """Add a rectangle with round corners; `x` and `y` are its upper left corner."""
        place = f'x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}"'
        self.parts.append(f'<rect {place} rx="6" fill="{fill}" stroke="{stroke}"/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 14,
        fill: str = INK,
        bold: bool = False,
        anchor: str = "middle",
    ) -> None:
        """Add a line of text; `y` is its base line."""
        weight = ' font-weight="600"' if bold else ""
        place = f'x="{n(x)}" y="{n(y)}" font-size="{size}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} fill="{fill}"{weight}>{escape(text)}</text>')

    def curve(self, start: tuple[float, float], end: tuple[float, float], *, head: bool) -> None:
        """Add a line that leaves and arrives upright, with or without an arrow head at its end."""
        (x1, y1), (x2, y2) = start, (end[0], end[1] - (5 if head else 0))
        bend = (y2 - y1) * 0.55
        path = f"M{n(x1)} {n(y1)} C{n(x1)} {n(y1 + bend)} {n(x2)} {n(y2 - bend)} {n(x2)} {n(y2)}"
        marker = ' marker-end="url(#head)"' if head else ""
        self.parts.append(f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.4"{marker}/>')

    def svg(self) -> str:
        """Return the picture as the text of an SVG file."""
        w, h = n(self.width), n(self.height)
        head = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="6" markerHeight="6" '
            'orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker></defs>'
        )
        size = f'width="{w}" height="{h}" viewBox="0 0 {w} {h}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}" role="img">',
            f"<title>{escape(self.title)}</title>",
            head,
            f'<rect width="{w}" height="{h}" rx="8" fill="{PAPER}"/>',
            *self.parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def n(value: float) -> str:
    """Return a number of pixels, whole."""
    return str(int(value + 0.5) if value >= 0 else -int(-value + 0.5))
