"""The golden thread: what a walk found, as its asker may see it, and how it reads as text. Pure.

What the asker may not see is one nameless thing for each place where it would stand, and nothing is
shown that only it leads to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime

from catalog.lineage.lineage import Node
from catalog.lineage.walks import Found, Link
from schemas.shapes import Shape

HIDDEN = "(hidden)"

# In which order kinds are told: how an answer was made, then of what, then why.
ORDER = (
    "endpoint",
    "route",
    "agent",
    "model_version",
    "model",
    "adapter",
    "training_run",
    "snapshot",
    "table",
    "row",
    "file",
    "index",
    "chunk",
    "tool_call",
    "function_version",
    "function",
    "prompt_version",
    "prompt",
    "connection",
    "policy",
    "principal",
    "response",
)
RANK = {kind: place for place, kind in enumerate(ORDER)}


class ThreadNode(Shape):
    """A thing; without a name where the asker may not see it."""

    kind: str
    name: str | None


class ThreadEdge(Shape):
    """An edge between two things, which are given by their places among the nodes."""

    downstream: int
    relation: str
    upstream: int
    attributes: Mapping[str, str] = {}
    first_at: datetime
    last_at: datetime


class Thread(Shape):
    """What came from a thing, or what it came from.

    Attributes:
        downstream: Whether it is what came from it.
        nodes: The things, the first of them where the walk started.
        edges: The edges, the nearest first.
        cut: Whether the limit left some out.
    """

    downstream: bool
    nodes: tuple[ThreadNode, ...]
    edges: tuple[ThreadEdge, ...]
    cut: bool = False

    def near(self, edge: ThreadEdge) -> int:
        """Returns the place of an edge's end that lies towards the start."""
        return edge.upstream if self.downstream else edge.downstream

    def far(self, edge: ThreadEdge) -> int:
        """Returns the place of an edge's other end."""
        return edge.downstream if self.downstream else edge.upstream

    def label(self, place: int) -> str:
        """Returns a thing in words that are safe to print."""
        node = self.nodes[place]
        return plain(f"{node.kind} {HIDDEN if node.name is None else node.name}")

    def distances(self) -> dict[int, int]:
        """Returns each thing's steps from the start."""
        away = {0: 0}
        for edge in self.edges:
            away.setdefault(self.far(edge), away[self.near(edge)] + 1)
        return away

    def rank(self, place: int) -> tuple[int, str, str, int]:
        """Returns what things are sorted by: the order of kinds, then names."""
        node = self.nodes[place]
        return RANK.get(node.kind, len(RANK)), node.kind, node.name or "", place


class _Seen:
    """Numbers things as they come into view; what is hidden is one thing for each place."""

    def __init__(self, start: Node) -> None:
        self.nodes = [ThreadNode(kind=start.kind, name=start.name)]
        self._places: dict[object, int] = {start: 0}

    def place(self, node: Node, hidden_at: tuple[int, str] | None) -> tuple[int, bool]:
        """Returns the place of a thing, and whether it is new."""
        key = node if hidden_at is None else (*hidden_at, node.kind)
        new = key not in self._places
        if new:
            self._places[key] = len(self.nodes)
            name = node.name if hidden_at is None else None
            self.nodes.append(ThreadNode(kind=node.kind, name=name))
        return self._places[key], new


def thread_of(
    start: Node, found: Found, *, downstream: bool, visible: Callable[[Node], bool]
) -> Thread:
    """Returns what was found as far as it is visible."""
    ways: dict[Node, list[Link]] = {}
    for link in found.links:
        ways.setdefault(link.upstream if downstream else link.downstream, []).append(link)
    seen = _Seen(start)
    edges: list[ThreadEdge] = []
    frontier = [start]
    while frontier:
        reached: list[Node] = []
        for near in frontier:
            here, _ = seen.place(near, None)
            for link in ways.get(near, ()):
                far = link.downstream if downstream else link.upstream
                open_to_see = far == start or visible(far)
                there, new = seen.place(far, None if open_to_see else (here, link.relation))
                if open_to_see or new:
                    edges.append(_shown(link, here, there, downstream, open_to_see))
                if open_to_see and new:
                    reached.append(far)
        frontier = reached
    return Thread(downstream=downstream, nodes=tuple(seen.nodes), edges=tuple(edges), cut=found.cut)


def _shown(link: Link, near: int, far: int, downstream: bool, whole: bool) -> ThreadEdge:
    return ThreadEdge(
        downstream=far if downstream else near,
        relation=link.relation,
        upstream=near if downstream else far,
        attributes=link.attributes if whole else {},
        first_at=link.first_at,
        last_at=link.last_at,
    )


def only(thread: Thread, kinds: Collection[str]) -> Thread:
    """Returns a thread with the things of some kinds, and what leads to them; all if none given."""
    if not kinds:
        return thread
    back: dict[int, list[int]] = {}
    for edge in thread.edges:
        back.setdefault(thread.far(edge), []).append(thread.near(edge))
    kept = {0}
    stack = [place for place, node in enumerate(thread.nodes) if node.kind in kinds]
    while stack:
        place = stack.pop()
        if place not in kept:
            kept.add(place)
            stack += back.get(place, ())
    renumbered = {place: number for number, place in enumerate(sorted(kept))}
    edges = (
        edge.model_copy(
            update={
                "downstream": renumbered[edge.downstream],
                "upstream": renumbered[edge.upstream],
            }
        )
        for edge in thread.edges
        if {edge.downstream, edge.upstream} <= kept
    )
    nodes = tuple(thread.nodes[place] for place in sorted(kept))
    return thread.model_copy(update={"nodes": nodes, "edges": tuple(edges)})


def as_text(thread: Thread) -> str:
    """Returns a thread as a tree; what stands in it twice branches where it is nearest."""
    return "\n".join([thread.label(0), *_branches(thread, 0, "", _Tree(thread))])


class _Tree:
    """The edges from each thing outwards, in the order of the tree, and which of them branch on."""

    def __init__(self, thread: Thread) -> None:
        self.ways: dict[int, list[ThreadEdge]] = {}
        reached = {0}
        self._first: set[tuple[int, str, int]] = set()
        for edge in thread.edges:
            self.ways.setdefault(thread.near(edge), []).append(edge)
            if thread.far(edge) not in reached:
                reached.add(thread.far(edge))
                self._first.add((edge.downstream, edge.relation, edge.upstream))
        for near in self.ways.values():
            near.sort(key=lambda edge: (thread.rank(thread.far(edge)), edge.relation))

    def goes_on(self, edge: ThreadEdge) -> bool:
        """Returns whether an edge is the nearest way to its end."""
        return (edge.downstream, edge.relation, edge.upstream) in self._first


def _branches(thread: Thread, place: int, indent: str, tree: _Tree) -> Iterator[str]:
    branches = tree.ways.get(place, ())
    for number, edge in enumerate(branches):
        corner, below = ("└─ ", "   ") if number == len(branches) - 1 else ("├─ ", "│  ")
        far = thread.far(edge)
        elsewhere = " ..." if far in tree.ways and not tree.goes_on(edge) else ""
        yield f"{indent}{corner}{_line(thread, edge)}{elsewhere}"
        if tree.goes_on(edge):
            yield from _branches(thread, far, indent + below, tree)


def _line(thread: Thread, edge: ThreadEdge) -> str:
    label, relation = thread.label(thread.far(edge)), plain(edge.relation)
    said = ", ".join(plain(f"{name}={value}") for name, value in sorted(edge.attributes.items()))
    line = f"{label} {relation} it" if thread.downstream else f"{relation} {label}"
    return f"{line} ({said})" if said else line


def plain(words: str) -> str:
    """Returns words with what could steer a terminal, or break a document, written out."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in words)


def notices(thread: Thread, limit: int) -> Iterable[str]:
    """Yields what must be said beside a thread."""
    if thread.cut:
        yield (
            f"cut at {limit} edges: the nearest are shown, and of each thing the newest; "
            "--limit shows more, --since and --depth ask for less"
        )
    if any(node.name is None for node in thread.nodes):
        yield f"{HIDDEN}: needs BROWSE, or belongs to another tenant"
