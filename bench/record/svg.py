"""Elements of SVG as text. No attribute is a style: the page's content security policy forbids those."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MARKERS = 4
"""Number of shapes of `marker`."""
CHARACTER_WIDTH = 6.7
"""Mean width of a character of 12 px in common sans-serif fonts, in pixels."""


def element(name: str, *content: str, **attributes: object) -> str:
    """Return an element.

    Args:
        name: of the element.
        content: markup; text has to be escaped.
        attributes: "class_" is "class", other underscores are hyphens; None is left out. Values are escaped.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{''.join(content)}</{name}>" if content else f"<{name}{given}/>"


def text(x: float, y: float, content: str, anchor: str = "start", **attributes: object) -> str:
    """Return a line of text. `anchor` is "start", "middle" or "end"."""
    return element("text", escape(content), x=x, y=y, text_anchor=anchor, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> str:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def rectangle(x: float, y: float, width: float, height: float, **attributes: object) -> str:
    """Return a rectangle; a width below one pixel is drawn as one."""
    return element("rect", x=x, y=y, width=max(width, 1.0), height=height, **attributes)


def path(points: Iterable[tuple[float, float]], closed: bool = False, **attributes: object) -> str:
    """Return a line through points."""
    joined = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return element("path", d=f"M{joined}{'Z' if closed else ''}", **attributes)


def marker(x: float, y: float, shape: int, size: float = 4.0, **attributes: object) -> str:
    """Return a circle, square, triangle or diamond around a point; `shape` counts on beyond `MARKERS`."""
    kind = shape % MARKERS
    if kind == 0:
        return element("circle", cx=x, cy=y, r=size, **attributes)
    if kind == 1:
        side = size * 0.9
        return rectangle(x - side, y - side, 2 * side, 2 * side, **attributes)
    corners: Sequence[tuple[float, float]] = (
        ((0, -1.25), (1.15, 0.85), (-1.15, 0.85)) if kind == 2 else ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0))
    )
    return path([(x + dx * size, y + dy * size) for dx, dy in corners], closed=True, **attributes)


def wrapped(content: str, characters: int) -> list[str]:
    """Break a text between words into lines of at most so many characters; longer words are kept whole."""
    lines = [""]
    for word in content.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= characters or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _value(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
