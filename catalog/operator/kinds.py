"""``tessera catalog kinds``: what the catalog holds, and what may stand in each kind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from inspect import getdoc
from typing import Annotated, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from catalog.declared.documents import Document, parse, write
from catalog.declared.problems import nearest
from catalog.operator.words import Unclear
from schemas.kinds import CONTAINERS, OBJECTS, PRINCIPALS, VERSIONED
from schemas.shapes import Spec

KINDS: dict[str, type[Spec]] = {**OBJECTS, **CONTAINERS, **PRINCIPALS}
EXAMPLES = "examples.yaml"
INDENT = "  "


def kinds(
    kind: Annotated[str, typer.Argument(help="endpoint, model, user, ...; all if left out.")] = "",
) -> None:
    """Show the kinds of things, or the fields of one kind and an example to apply.

    Example: tessera catalog kinds endpoint
    """
    typer.echo("\n".join(described(kind) if kind else listed()))


def listed() -> Iterator[str]:
    """Yields a line for each kind."""
    for kind, shape in sorted(KINDS.items()):
        yield f"{kind:18}{_first_line(shape)}"
    yield "\nThe fields of one, and an example: tessera catalog kinds endpoint"


def described(kind: str) -> Iterator[str]:
    """Yields what may stand in a kind, and an example.

    Raises:
        Unclear: There is no such kind.
    """
    if kind not in KINDS:
        raise Unclear(f"there is no kind {kind}; {nearest(kind, KINDS)}")
    yield f"spec of {kind}: {getdoc(KINDS[kind])}"
    yield from _fields(KINDS[kind], INDENT)
    if version := VERSIONED.get(kind):
        yield f"\nspec of each version: {getdoc(version)}"
        yield from _fields(version, INDENT)
    yield "\nExample (tessera apply -f FILE.yaml):\n"
    yield write(each for each in examples() if each.kind == kind).rstrip()


@cache
def examples() -> tuple[Document, ...]:
    """Returns a document of each kind."""
    text = (files("catalog.operator") / EXAMPLES).read_text(encoding="utf-8")
    return tuple(parse(text, EXAMPLES))


def _fields(shape: type[BaseModel], indent: str) -> Iterator[str]:
    for name, field in shape.model_fields.items():
        needed = "needed" if field.is_required() else "may be left out"
        yield f"{indent}{name:16}{_kind_of(field)}, {needed}"
        inner = list(dict.fromkeys(_inner(field.annotation)))
        for each in inner:
            if len(inner) > 1:
                yield f"{indent}{INDENT}{_tag(each)}: {_first_line(each)}"
            yield from _fields(each, indent + INDENT * len(inner[:2]))


def _tag(shape: type[BaseModel]) -> str:
    """Returns what tells a shape from the others that may stand in its place."""
    return " or ".join(get_args(shape.model_fields["type"].annotation))


def _kind_of(field: FieldInfo) -> str:
    text = str(field.annotation)
    if list(_inner(field.annotation)):
        return "mapping to" if "dict[" in text else "list of" if "tuple[" in text else "one of"
    if choices := [each for each in _flat(field.annotation) if isinstance(each, str)]:
        return f"one of {', '.join(choices)}"
    for part, word in (("tuple[", "list"), ("dict[", "mapping"), ("bool", "true or false")):
        if part in text:
            return word
    return "text"


def _inner(annotation: object) -> Iterator[type[BaseModel]]:
    """Yields the shapes inside a type."""
    for each in _flat(annotation):
        if isinstance(each, type) and issubclass(each, BaseModel):
            yield each


def _flat(annotation: object) -> Iterator[object]:
    yield annotation
    for each in get_args(annotation):
        yield from _flat(each)


def _first_line(shape: type[BaseModel]) -> str:
    return (getdoc(shape) or "").partition("\n")[0]
