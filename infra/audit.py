"""The audit: who did what to what, and whether a request was signed by whom it names.

    tessera audit --who operator --what 'catalog.*' --since 1h
    tessera audit --on main.default.smollm2 --outcome denied --json
    tessera audit --verify REQUEST_ID

Knows the tables ``audits`` and ``inferences`` of the lake and the catalog's public keys. Does not
know how anything came about, and changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from infra.bus import BusUnreachable
from infra.follow import CatalogLost
from infra.lake import QueryInvalid, query
from infra.proof import Unproved, proof, signers
from infra.registry import RegistryUnreachable, SchemaMissing
from infra.screen import as_json
from infra.settings import (
    KafkaSettings,
    LakeSettings,
    RegistrySettings,
    SettingInvalid,
)
from infra.telemetry import configure_command, now
from schemas.events import AuditOutcome

AGO = re.compile(r"([0-9]{1,6})([dhmsw])")
UNITS: dict[str, timedelta] = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "w": timedelta(weeks=1),
}
# Fields that differ at every change.
BOOKKEEPING = frozenset({"created_at", "created_by", "etag", "updated_at", "updated_by"})
MOST_CHANGES = 12
MOST_CHARACTERS = 80
UNFIT = (
    BusUnreachable,
    CatalogLost,
    LookupError,
    QueryInvalid,
    RegistryUnreachable,
    SchemaMissing,
    SettingInvalid,
    Unproved,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the audit; what is None is not asked.

    Attributes:
        who: A principal.
        what: An action, or how it begins, with a ``*`` behind it.
        on: Full name of an object, its versions and grants among them, or how a name begins, with
            a ``*`` behind it.
        since: The first instant of interest.
        outcome: How it ended.
        limit: Most rows.
    """

    who: str | None = None
    what: str | None = None
    on: str | None = None
    since: datetime | None = None
    outcome: str | None = None
    limit: int = 50


def ask(root: Path, question: Question) -> Any:
    """Returns the rows of the audit that a question asks for, the newest first, as Arrow.

    Raises:
        QueryInvalid: Nothing was audited yet.
    """
    values: dict[str, object] = {"limit": question.limit}
    conditions = ["true"]
    for name, condition in CONDITIONS.items():
        asked = getattr(question, name)
        if asked is not None:
            clause, value = condition(asked)
            conditions.append(clause)
            values[name] = value
    return query(
        root,
        f"SELECT * FROM audits WHERE {' AND '.join(conditions)} "
        'ORDER BY "at" DESC, log_partition, log_offset DESC LIMIT $limit',
        values,
    )


def _action(asked: str) -> tuple[str, object]:
    if asked.endswith("*"):
        return "starts_with(action, $what)", asked[:-1]
    return "action = $what", asked


def _name(asked: str) -> tuple[str, object]:
    if asked.endswith("*") and asked != "*":
        return "starts_with(name, $on)", asked[:-1]
    return "(name = $on OR starts_with(name, $on || '@') OR starts_with(name, $on || '/'))", asked


# Only these words are SQL; what was asked is bound.
CONDITIONS: dict[str, Callable[[Any], tuple[str, object]]] = {
    "on": _name,
    "outcome": lambda asked: ("outcome = $outcome", asked.upper()),
    "since": lambda asked: ('"at" >= $since AND date >= CAST($since AS DATE)', asked),
    "what": _action,
    "who": lambda asked: ("principal = $who", asked),
}


def told(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields a row in words: who, what and how it ended; by which request; each change."""
    at = row["at"].astimezone(UTC)
    who = row["principal"] or row["tenant"] or "nobody known"
    reason = f": {row['reason']}" if row["reason"] else ""
    named = f"{row['kind']} {row['name']}".strip()
    words = (f"{at:%Y-%m-%d %H:%M:%SZ}", who, row["action"], named, f"{row['outcome']}{reason}")
    yield _visible("  ".join(words))
    causes = [f"{each} {row[f'{each}_id']}" for each in ("request", "trace") if row[f"{each}_id"]]
    if causes:
        yield _visible(f"    {'  '.join(causes)}")
    if row["before"] is None and row["after"] is None:
        return
    changed = list(changes(row["before"], row["after"]))
    yield from (f"    {line}" for line in changed[:MOST_CHANGES])
    if len(changed) > MOST_CHANGES:
        yield f"    and {len(changed) - MOST_CHANGES} more; --json shows all"


def changes(before: str | None, after: str | None) -> Iterator[str]:
    """Yields what differs between two objects in JSON, field by field: ``path: old -> new``."""
    old, new = (dict(_leaves(_read(text))) for text in (before, after))
    for place in [*old, *(place for place in new if place not in old)]:
        if old.get(place) != new.get(place) and place not in BOOKKEEPING:
            label = f"{_visible(place)}: " if place else ""
            yield f"{label}{_short(old.get(place))} -> {_short(new.get(place))}"


def _read(text: str | None) -> object:
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _leaves(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{number}]")
    elif value not in (None, ""):
        yield place, value


def _short(value: object) -> str:
    if value is None:
        return "nothing"
    text = _visible(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def _visible(text: str) -> str:
    """Returns a text with what would move a terminal's cursor, or worse, written out."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def instant(text: str) -> datetime:
    """Returns the instant that ``1h``, ``30m``, ``2026-11-25`` or an ISO instant means; UTC.

    Raises:
        ArgumentTypeError: It means none.
    """
    try:
        if found := AGO.fullmatch(text):
            return now() - int(found[1]) * UNITS[found[2]]
        at = datetime.fromisoformat(text)
    except (OverflowError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text} is no time: say 30m, 1h, 7d, 2026-11-25 or 2026-11-25T12:00:00Z"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def main(words: Sequence[str]) -> int:
    """Answers what the command line asks; returns the exit code."""
    arguments = _arguments(words)
    root = LakeSettings().root
    try:
        if arguments.verify:
            known = asyncio.run(signers(KafkaSettings(), RegistrySettings()))
            print(proof(root, arguments.verify, known))
            return 0
        asked = Question(**{name: getattr(arguments, name) for name in (*CONDITIONS, "limit")})
        _show(ask(root, asked), as_lines=arguments.json)
    except UNFIT as problem:
        print(f"audit: {problem}", file=sys.stderr)
        return 1
    return 0


def _show(found: Any, *, as_lines: bool) -> None:
    if as_lines:
        print(as_json(found))
        return
    rows = found.to_pylist()
    for row in rows:
        print("\n".join(told(row)))
    if not rows:
        print("nothing of that is in the audit", file=sys.stderr)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    outcomes = [each.lower() for each in AuditOutcome]
    parser.add_argument("--who", metavar="PRINCIPAL", help="who did it")
    parser.add_argument("--what", metavar="ACTION", help="what: catalog.grant, or catalog.*")
    parser.add_argument("--on", metavar="NAME", help="full name, or its beginning and a *")
    parser.add_argument("--since", type=instant, metavar="TIME", help="1h, 7d, 2026-11-25")
    parser.add_argument("--outcome", choices=outcomes, help="how it ended")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="most rows (50)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, whole")
    parser.add_argument(
        "--verify", metavar="REQUEST_ID", help="who signed a request of the inference table"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    configure_command("audit")
    sys.exit(main(sys.argv[1:]))
