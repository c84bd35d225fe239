"""What an index is to be like: from words to a definition, and how two of them differ. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.declared.problems import spec_of
from catalog.operator.words import Unclear
from schemas.indexes import IndexSpec
from schemas.tables import TableSpec

# What says how an index runs and who sees it, and not what it is.
RUNNING = ("paused", "generation", "trigger", "row_filters", "column_masks")
# These may change under an index that stays as it is built.
LIGHT = frozenset({"sync"})
TOPIC = "topic:"

Differences = Mapping[str, tuple[object, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What was typed; what is None was left out."""

    source: str | None = None
    text: str | None = None
    keys: Sequence[str] = ()
    columns: Sequence[str] = ()
    endpoint: str | None = None
    chunking: str | None = None
    size: int | None = None
    overlap: int | None = None
    sync: str | None = None
    distance: str | None = None
    dimensions: int | None = None
    document_prefix: str | None = None
    query_prefix: str | None = None


def defined(words: Words) -> IndexSpec:
    """Returns the definition that was typed.

    Raises:
        Invalid: A field has not its shape.
        Unclear: Words do not go together, or the text or a column cannot be read.
    """
    if words.source and not words.text:
        raise Unclear(
            "say with --text what is searched: a column, or several: --text '{title}: {body}'"
        )
    if words.sync and not words.source:
        raise Unclear("--sync is of an index over a table: say --source TABLE, too")
    spec: dict[str, Any] = {
        "source": words.source,
        "text": words.text,
        "key_columns": list(words.keys),
        "columns": [_column(each) for each in words.columns],
        "endpoint": words.endpoint,
        "chunking": _chunking(words),
        "sync": words.sync,
        "distance": words.distance,
        "dimensions": words.dimensions,
        "document_prefix": words.document_prefix,
        "query_prefix": words.query_prefix,
    }
    shaped = spec_of("index", {name: each for name, each in spec.items() if each is not None})
    assert isinstance(shaped, IndexSpec)
    fits(shaped, None)
    return shaped


def fits(wanted: IndexSpec, table: TableSpec | None) -> None:
    """Returns if a definition can be kept, as far as it and its table tell.

    Args:
        wanted: The definition.
        table: Its source; None where that is not known.

    Raises:
        Unclear: It cannot.
    """
    from infra.documents.texts import problems  # noqa: PLC0415 - takes a second to load

    columns = {each.name for each in table.columns} if table else set()
    if found := problems(wanted, columns):
        raise Unclear("\n         ".join(found))
    if table and not table.location.startswith(TOPIC) and table.capture is None:
        raise Unclear(
            f"no topic has the changes of {wanted.source}: let it be captured first: "
            f"tessera source create {wanted.source} "
            f"--connection {table.connection or 'CONNECTION'} --table {table.location}"
        )


def differences(there: IndexSpec, wanted: IndexSpec) -> Differences:
    """Returns the fields in which a definition is another: what is there, and what is wanted."""
    before, after = (each.model_dump(mode="json") for each in (there, wanted))
    return {
        field: (before[field], after[field])
        for field in before
        if field not in RUNNING and before[field] != after[field]
    }


def other(name: str, there: IndexSpec, wanted: IndexSpec, found: Differences) -> str:
    """Returns in which way an index that is there is another one, and what to use instead."""
    lines = [f"{name} is there already, and is another:"]
    lines += [f"    {field}: {_json(is_)} -> {_json(was)}" for field, (is_, was) in found.items()]
    if there.source is None or "source" in found:
        return "\n".join([*lines, "take another name, or drop it: tessera index drop " + name])
    if found.keys() <= LIGHT:
        lines.append("to have it so:")
        return "\n".join([*lines, _update(name, there, wanted, there.generation)])
    lines.append(
        "to have it so, built anew from its table, while queries see what is there until then:"
    )
    return "\n".join([*lines, _update(name, there, wanted, there.generation + 1)])


def described(spec: IndexSpec) -> dict[str, Any]:
    """Returns a definition as people read it."""
    cut = spec.chunking
    overlap = f", {cut.overlap} of them again" if cut.by == "tokens" else ""
    return {
        "source": spec.source or "none: callers write to it",
        "text": spec.text,
        "key columns": ", ".join(spec.key_columns),
        "columns": ", ".join(f"{each.name}:{each.type}" for each in spec.columns),
        "chunking": cut.by if cut.by == "none" else f"by {cut.by}, {cut.size} tokens{overlap}",
        "endpoint": spec.endpoint,
        "dimensions": spec.dimensions,
        "document prefix": spec.document_prefix,
        "query prefix": spec.query_prefix,
        "distance": spec.distance,
        "sync": spec.sync if spec.source else None,
    }


def _update(name: str, there: IndexSpec, wanted: IndexSpec, generation: int) -> str:
    kept = {field: getattr(there, field) for field in RUNNING} | {"generation": generation}
    spec = wanted.model_copy(update=kept).model_dump(mode="json", exclude_defaults=True)
    return f"    tessera catalog update {name} --kind index --spec {shlex.quote(_json(spec))}"


def _column(word: str) -> dict[str, str]:
    name, _, kind = word.partition(":")
    return {"name": name, "type": kind or "string"}


def _chunking(words: Words) -> dict[str, Any] | None:
    by = words.chunking or "none"
    if by == "none" and (words.size is not None or words.overlap is not None):
        raise Unclear("--size and --overlap are of texts that are cut: say --chunking tokens, too")
    if by != "tokens" and words.overlap is not None:
        raise Unclear("only texts that are cut by tokens overlap: leave --overlap out")
    said = {"by": words.chunking, "size": words.size, "overlap": words.overlap}
    return {name: each for name, each in said.items() if each is not None} or None


def _json(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
