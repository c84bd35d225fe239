"""What may stand in an entry, checked before the database is asked: names, specs, texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from pydantic import Field, ValidationError

from catalog.store.refusals import invalid, misshapen
from schemas.kinds import CONTAINERS, OBJECTS, PRINCIPALS, ROOT, VERSIONED, NoSpec
from schemas.shapes import NAME, Name, Shape, Spec

S = TypeVar("S", bound=Shape)

SECURABLES: dict[str, type[Spec]] = {**CONTAINERS, **OBJECTS}
# How many levels a name has.
LEVELS: dict[str, int] = {"catalog": 1, "schema": 2}
OBJECT_LEVELS = 3

# What is longer is no number of a version, and no alias either.
VERSION_NUMBER = r"[0-9]{1,9}"


class Given(Shape):
    """What is given of each entry that has an owner, beside its spec."""

    owner: Name
    comment: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    properties: dict[str, str] = Field(default_factory=dict)
    aliases: dict[Name, int] = Field(default_factory=dict)


class Target(NamedTuple):
    """What a reference names: an object, or one version of it by number or by alias."""

    name: str
    version: int | None
    alias: str | None


def target_of(reference: str) -> Target:
    """Returns what a reference of a spec names: ``a.b.c``, ``a.b.c@3`` or ``a.b.c@prod``."""
    name, _, pinned = reference.partition("@")
    if re.fullmatch(VERSION_NUMBER, pinned):
        return Target(name, int(pinned), None)
    return Target(name, None, pinned or None)


def named(kind: str, name: str) -> None:
    """Returns if a name is one for this kind.

    Raises:
        CatalogRefused: There is no such kind, or its names look otherwise.
    """
    if kind not in SECURABLES and kind not in PRINCIPALS:
        known = ", ".join(sorted({*SECURABLES, *PRINCIPALS}))
        raise invalid(f"the catalog knows these kinds: {known}", "kind")
    levels = 1 if kind in PRINCIPALS else LEVELS.get(kind, OBJECT_LEVELS)
    if not re.fullmatch(r"\.".join([NAME] * levels), name):
        what = "a level" if levels == 1 else f"{levels} levels with dots between them, each"
        raise invalid(
            f"the name of a {kind} is {what} of 1 to 100 letters, digits, _ and -, "
            "the first of them no -",
            "name",
        )


def above(name: str) -> str:
    """Returns the name of what holds a container or object."""
    return name.rpartition(".")[0] or ROOT


def given(**attributes: object) -> Given:
    """Returns what is given of an entry; None stands for what is left out.

    Raises:
        CatalogRefused: It has another shape; the paths of the wrong fields are named.
    """
    return shaped(Given, {name: each for name, each in attributes.items() if each is not None})


def spec_of(kind: str, spec: Mapping[str, object]) -> Spec:
    """Returns a spec in the shape of its kind.

    Raises:
        CatalogRefused: It has another shape; the paths of the wrong fields are named.
    """
    return shaped({**SECURABLES, **PRINCIPALS}.get(kind, NoSpec), spec, "spec")


def version_spec_of(kind: str, spec: Mapping[str, object]) -> Spec:
    """Returns the spec of a version in the shape of its object's kind.

    Raises:
        CatalogRefused: The kind has no versions, or the spec has another shape.
    """
    if kind not in VERSIONED:
        raise invalid(f"only these kinds have versions: {', '.join(sorted(VERSIONED))}", "kind")
    return shaped(VERSIONED[kind], spec, "spec")


def shaped(shape: type[S], value: object, within: str = "") -> S:
    """Returns a value in a shape.

    Raises:
        CatalogRefused: It has another; the paths of the wrong fields are named, no value is.
    """
    try:
        return shape.model_validate(value)
    except ValidationError as problem:
        raise misshapen(problem, within) from None


def text(value: object, field: str) -> str:
    """Returns a text.

    Raises:
        CatalogRefused: It is none.
    """
    if not isinstance(value, str):
        raise invalid(f"{field} is a text", field)
    storable(value, field)
    return value


def storable(value: object, field: str) -> None:
    """Returns if the database and the bus can keep a value.

    Raises:
        CatalogRefused: Some text in it is no Unicode, or holds a NUL character, or a number is
            none of JSON's.
    """
    try:
        told = written(value)
        told.encode()
    except (RecursionError, ValueError):
        raise invalid(f"{field} holds what JSON cannot say in Unicode", field) from None
    if "\\u0000" in told and _has_nul(value):
        raise invalid(f"{field} holds a NUL character", field)


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any(_has_nul(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple):
        return any(map(_has_nul, value))
    return False


def written(value: object) -> str:
    """Returns JSON text that is the same for the same value, whatever order its keys had."""
    return json.dumps(
        value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
