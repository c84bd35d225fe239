"""The action ``lineage``: a walk from what the caller names, as far as the caller may see.

Whoever holds MANAGE on the root sees everything. Otherwise a response is its tenant's, an object of
the catalog takes BROWSE, and a row SELECT on its table. Everything else (files, snapshots, chunks,
runs, principals) is seen where something leads to it that is seen, and is no place to start from.
Whoever may not see the start is told the same whether it is known or not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from psycopg.errors import QueryCanceled
from pydantic import AwareDatetime, Field
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from catalog.declared.picture import without_version
from catalog.declared.problems import kind_problem
from catalog.lineage.edges import kinds_of, reading, tenants_of, walk
from catalog.lineage.lineage import ADMISSION, KINDS, SERVING, Node
from catalog.lineage.thread import only, thread_of
from catalog.lineage.walks import DEPTH, LIMIT, Walk
from catalog.registrar.arguments import Asking
from catalog.registrar.call import Call, Result
from catalog.store.refusals import CatalogRefused, invalid
from schemas.events import Reason
from schemas.kinds import OBJECTS, ROOT, Privilege
from schemas.shapes import Text

MOST_STEPS = 100
MOST_EDGES = 10_000
MOST_SHOWN = 120

BUILT_IN = frozenset({ADMISSION, SERVING})
# Versions and routes are seen like what they are of.
OF_OBJECTS = frozenset(
    {*OBJECTS, "adapter", "function_version", "model_version", "prompt_version", "route"}
)


class Lineage(Asking):
    """What is to be followed; what is left out is not limited.

    Attributes:
        name: Id of a response, or the name of another thing.
        kind: Its kind, where the name alone could mean several.
        downstream: What came from it, instead of what it came from.
        depth: Steps at most.
        since: Only along what was so at this time or later.
        until: Only along what was so before this time.
        kinds: Only things of these kinds, and what leads to them.
        limit: Edges at most.
    """

    name: Text
    kind: str | None = None
    downstream: bool = False
    depth: int = Field(default=DEPTH, ge=1, le=MOST_STEPS)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    kinds: tuple[str, ...] = ()
    limit: int = Field(default=LIMIT, ge=1, le=MOST_EDGES)


def lineage(call: Call, asked: Lineage) -> Result:
    """Returns a ``catalog.thread.Thread`` as JSON.

    Raises:
        CatalogRefused: Nothing is known of the start, or the caller may not see it; a kind is
            none; or the walk takes too long.
    """
    for kind in filter(None, (asked.kind, *asked.kinds)):
        if problem := kind_problem(kind, KINDS):
            raise invalid(problem, "kind")
    try:
        with reading(call.engine) as connection:
            return _followed(connection, call, asked)
    except OperationalError as problem:
        if not isinstance(problem.orig, QueryCanceled):
            raise
        message = "this walk takes too long; ask for less: depth, since, until, limit"
        raise invalid(message, "depth") from None


def _followed(connection: Connection, call: Call, asked: Lineage) -> Result:
    start = _start(connection, call, asked)
    found = walk(
        connection,
        Walk(
            start=start,
            downstream=asked.downstream,
            depth=asked.depth,
            since=asked.since,
            until=asked.until,
            limit=asked.limit,
        ),
    )
    ends = {end for link in found.links for end in (link.downstream, link.upstream)}
    visible = _visibility(connection, call, ends)
    thread = thread_of(start, found, downstream=asked.downstream, visible=visible)
    return only(thread, asked.kinds).model_dump(mode="json")


def _start(connection: Connection, call: Call, asked: Lineage) -> Node:
    known = [Node(kind, asked.name) for kind in kinds_of(connection, asked.name)]
    visible = _visibility(connection, call, known)
    manages = call.holds(Privilege.MANAGE, ROOT)
    starts = [
        node
        for node in known
        if asked.kind in (None, node.kind)
        and visible(node)
        and (manages or (node.kind in {*OF_OBJECTS, "response"} and node.name not in BUILT_IN))
    ]
    if len(starts) == 1:
        return starts[0]
    if starts:
        listed = " and a ".join(node.kind for node in starts)
        raise invalid(f"this is a {listed}: say which kind", "kind")
    raise CatalogRefused(Reason.NOT_FOUND, _unknown(asked), "name")


def _unknown(asked: Lineage) -> str:
    name = asked.name
    if asked.kind not in (None, "response") or not re.fullmatch(r"[\w-]{1,100}", name):
        return f"nothing is recorded of {name[:MOST_SHOWN]!r} that you may see"
    sql = f"select * from inferences where request_id = '{name}'"
    return (
        f"nothing is recorded of {name}, or it is another tenant's: it takes a few seconds after "
        f'the reply; look it up: tessera sql "{sql}"'
    )


def _visibility(
    connection: Connection, call: Call, nodes: Iterable[Node]
) -> Callable[[Node], bool]:
    """Returns whether the caller may see a thing, given all that it may be asked of."""
    if call.holds(Privilege.MANAGE, ROOT):
        return lambda node: True
    answers = [node.name for node in nodes if node.kind == "response"]
    tenants = tenants_of(connection, answers)

    def visible(node: Node) -> bool:
        kind, name = node
        if kind == "response":
            # Whoever else used its id cannot have it shown, nor see it.
            return tenants.get(name) == {call.actor.tenant}
        if kind == "row":
            table, principal = name.partition("/")[0], call.actor.principal
            return call.view.access.may(principal, Privilege.SELECT, table)
        if kind in OF_OBJECTS and name not in BUILT_IN:
            return call.holds(Privilege.BROWSE, _securable(node))
        return True

    return visible


def _securable(node: Node) -> str:
    return without_version(node.name.partition("/")[0])
