"""A thread as a picture: one SVG that needs nothing else, the same for the same thread. Pure.

Columns are steps from the start, on the left; in a column things stand in the order of their kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from catalog.lineage.thread import Thread, ThreadEdge, plain

WIDTH, HEIGHT = 290, 44
GAP_X, GAP_Y = 130, 18
MARGIN = 20
MOST_LETTERS = 38

# Fill of each kind's box; other kinds are grey.
FILLS: dict[str, str] = {
    "adapter": "#e3d9f5",
    "chunk": "#d8efdc",
    "endpoint": "#d6e6f7",
    "file": "#f6ead2",
    "function_version": "#f3dbe6",
    "model_version": "#e3d9f5",
    "policy": "#f9d9d4",
    "response": "#cfd8dc",
    "route": "#d6e6f7",
    "row": "#f6ead2",
    "snapshot": "#f6ead2",
    "tool_call": "#f3dbe6",
    "training_run": "#e3d9f5",
}
GREY = "#eceff1"
# Which sides an arrow joins, 0 for the left: by whether it leads on, stays in its column, or back.
SIDES = {-1: (0, 1), 0: (1, 1), 1: (1, 0)}
BEND = GAP_X // 2
LINE = "#78909c"
HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
    f'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="{LINE}"/>'
    "</marker></defs>"
)


class Box(NamedTuple):
    """Where a thing stands: the left upper corner, in pixels."""

    x: int
    y: int


def as_svg(thread: Thread) -> str:
    """Returns the picture."""
    boxes = _boxes(thread)
    width = max(box.x for box in boxes.values()) + WIDTH + MARGIN
    height = max(box.y for box in boxes.values()) + HEIGHT + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
            f"<title>{escape(thread.label(0))}</title>",
            HEAD,
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *sorted(_arrow(thread, edge, boxes) for edge in thread.edges),
            *sorted(_thing(thread, place, box) for place, box in boxes.items()),
            "</svg>\n",
        ]
    )


def _boxes(thread: Thread) -> dict[int, Box]:
    columns: dict[int, list[int]] = {}
    for place, away in thread.distances().items():
        columns.setdefault(away, []).append(place)
    return {
        place: Box(MARGIN + away * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
        for away, places in columns.items()
        for row, place in enumerate(sorted(places, key=thread.rank))
    }


def _thing(thread: Thread, place: int, box: Box) -> str:
    node = thread.nodes[place]
    name = thread.label(place).removeprefix(f"{plain(node.kind)} ")
    dashed = ' stroke-dasharray="4 3"' if node.name is None else ""
    return (
        f'<g><title>{escape(thread.label(place))}</title><rect x="{box.x}" y="{box.y}" '
        f'width="{WIDTH}" height="{HEIGHT}" rx="5" fill="{FILLS.get(node.kind, GREY)}" '
        f'stroke="{LINE}"{dashed}/>'
        f'<text x="{box.x + 10}" y="{box.y + 17}" fill="#546e7a">{escape(_short(plain(node.kind)))}'
        f'</text><text x="{box.x + 10}" y="{box.y + 34}" fill="#212121">{escape(_short(name))}'
        "</text></g>"
    )


def _arrow(thread: Thread, edge: ThreadEdge, boxes: dict[int, Box]) -> str:
    """An arrow from what was made to what it was made of, with the relation on it."""
    near, far = boxes[thread.near(edge)], boxes[thread.far(edge)]
    # From the right to the left side, back the other way, and in one column around the right.
    out, into = SIDES[(far.x > near.x) - (far.x < near.x)]
    x1, y1 = near.x + out * WIDTH, near.y + HEIGHT // 2
    x2, y2 = far.x + into * WIDTH, far.y + HEIGHT // 2
    c1, c2 = (x + (BEND if side else -BEND) for x, side in ((x1, out), (x2, into)))
    curve = f"M{x1} {y1}C{c1} {y1} {c2} {y2} {x2} {y2}"
    head = f'marker-{"start" if thread.downstream else "end"}="url(#head)"'
    return (
        f'<g><title>{escape("; ".join(_said(edge)))}</title><path d="{curve}" '
        f'fill="none" stroke="{LINE}" {head}/><text x="{(x1 + x2 + c1 + c2) // 4}" '
        f'y="{(y1 + y2) // 2 - 4}" fill="#546e7a" font-size="10" text-anchor="middle" '
        'paint-order="stroke" stroke="#ffffff" stroke-width="3">'
        f"{escape(_short(plain(edge.relation)))}</text></g>"
    )


def _said(edge: ThreadEdge) -> Iterator[str]:
    yield plain(edge.relation)
    yield from (plain(f"{name}={value}") for name, value in sorted(edge.attributes.items()))


def _short(words: str) -> str:
    return words if len(words) <= MOST_LETTERS else f"{words[: MOST_LETTERS - 1]}…"
