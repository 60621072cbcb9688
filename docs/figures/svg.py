"""The few shapes that the drawings consist of, as SVG."""

from collections.abc import Sequence
from html import escape

Point = Sequence[float]
INK, PAPER = "#222", "#fff"
ARROW = "url(#arrow)"


def document(width: int, height: int, shapes: Sequence[str]) -> str:
    """A drawing on white, so that it can be read on dark pages too."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="14">\n'
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{INK}"/>'
        "</marker></defs>\n"
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>\n'
    )
    return head + "\n".join(shapes) + "\n</svg>\n"


def text(x: float, y: float, words: str, color: str = INK, anchor: str = "middle") -> str:
    """Words, their baseline at y."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"'
    return f"<text {place}>{escape(words)}</text>"


def box(x: float, y: float, width: float, height: float, lines: str, fill: str) -> str:
    """A rounded box with centered lines of text."""
    rect = (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" '
        f'stroke="{INK}"/>'
    )
    words = lines.split("\n")
    first = y + height / 2 + 5 - 9 * (len(words) - 1)
    return rect + "".join(text(x + width / 2, first + 18 * i, line) for i, line in enumerate(words))


def line(
    points: Sequence[Point], color: str = INK, *, arrow: bool = False, dashed: bool = False,
    width: float = 1.5,
) -> str:  # fmt: skip
    """An open line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    end = f' marker-end="{ARROW}"' if arrow else ""
    stroke = f'stroke="{color}" stroke-width="{width}"{dash}{end}'
    return f'<polyline points="{path}" fill="none" {stroke}/>'
