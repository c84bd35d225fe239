"""What is wrong with arguments, documents and specs, in words that name place and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from infra.secrets import leads
from schemas.checks import NOT_A_REFERENCE
from schemas.kinds import CONTAINERS, OBJECTS, PRINCIPALS, VERSIONED, ConnectionSpec
from schemas.shapes import DURATION, NAME, Spec

Place = tuple[int | str, ...]

# Every kind that a document or a command may name, with the shape of its spec.
KINDS: dict[str, type[Spec]] = {**OBJECTS, **CONTAINERS, **PRINCIPALS}

ONE = re.compile(rf"{NAME}")
TWO = re.compile(rf"{NAME}\.{NAME}")
THREE = re.compile(rf"{NAME}\.{NAME}\.{NAME}")
# Beyond this a word is no slip of the pen, and comparing it takes long.
LONGEST_WORD = 100
# Whoever made more slips than these has not read them, and each is compared with what is known.
MOST_PROBLEMS = 100
# Where a validation means the key of a mapping, not what stands there.
KEY = "[key]"
PLAIN = {"missing": "this field is missing", "too_short": "there is too little in this list"}
CHARACTERS = "letters, digits, _ and -, at most 100 of them, no - in front"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where in the document or the arguments, and what to do about it."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{written(self.place)}: {self.message}" if self.place else self.message


class Invalid(ValueError):
    """Arguments or a document that cannot be taken.

    Attributes:
        problems: All that is wrong, in the order of the text.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def written(place: Place) -> str:
    """Returns a place as people write it: ``spec.routes[0].pool``."""
    return "".join(
        f"[{each}]" if isinstance(each, int) else f".{each}" for each in place
    ).removeprefix(".")


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns which of the known words may be meant, and all of them."""
    listed = sorted(known)
    found = difflib.get_close_matches(word, listed, 1) if len(word) <= LONGEST_WORD else []
    meant = f"did you mean {found[0]}? " if found else ""
    return f"{meant}there are: {', '.join(listed)}"


def shape_problems(
    failure: ValidationError, shape: type[BaseModel], under: Place = ()
) -> Iterator[Problem]:
    """Yields what a validation found, the first 100 of it.

    Args:
        failure: The validation.
        shape: What was validated against; unknown fields are told its nearest one.
        under: Where the validated value stands.
    """
    found = failure.errors(include_url=False, include_input=True)
    inner = {each["loc"][:depth] for each in found for depth in range(len(each["loc"]))}
    for each in islice(found, MOST_PROBLEMS):
        # A list is also too short where what stands in it does not count.
        if each["type"] == "too_short" and each["loc"] in inner:
            continue
        place, holder = _walked(shape, each["loc"])
        place = (*place, *each.get("ctx", {}).get("within", ()))
        yield Problem((*under, *place), _message(each, holder, place))


def _message(each: Any, holder: type[BaseModel] | None, place: Place) -> str:  # noqa: PLR0911
    if each["type"] == "extra_forbidden":
        fields = holder.model_fields if holder else {}
        return f"there is no field {place[-1]}; {nearest(str(place[-1]), fields)}"
    if each["type"] in PLAIN:
        return PLAIN[each["type"]]
    if each["type"] == "union_tag_invalid":
        known_words = re.findall(r"'([^']*)'", str(each["ctx"]["expected_tags"]))
        said = str(each["ctx"]["tag"])
        return f"{said} is no type that may stand here; {nearest(said, known_words)}"
    if each["type"] == "union_tag_not_found":
        return "this needs a type, which says what it is"
    if each["type"] in ("enum", "literal_error") and isinstance(each["input"], str):
        known_words = re.findall(r"'([^']*)'", str(each["ctx"]["expected"]))
        return (
            f"{each['input']} is none of what may stand here; {nearest(each['input'], known_words)}"
        )
    if each["type"] == "string_pattern_mismatch":
        # What stands here is not quoted: it may be a secret, written in the wrong place.
        return f"this does not have the form {_form(each['ctx']['pattern'])}"
    if each["type"] == "string_type" and isinstance(each["input"], bool | float | int):
        return "this must be text; put it in quotes"
    return str(each["msg"]).replace("Input should", "this should").removeprefix("Value error, ")


def _form(pattern: str) -> str:
    if pattern == DURATION:
        return "of a duration: a whole number and ms, s, m, h or d, as in 30s or 24h"
    if pattern.endswith(r"\*)$"):
        return "catalog.schema.name, or with @ and a version behind it; or catalog.schema.*"
    levels = pattern.count(NAME)
    if "@" in pattern and levels:
        return "catalog.schema.name, or with @ and a version behind it"
    names = {1: "of a name", 3: "catalog.schema.name"}
    return f"{names[levels]} ({CHARACTERS})" if levels in names else pattern


def _walked(shape: type[BaseModel], loc: Place) -> tuple[Place, type[BaseModel] | None]:
    """Returns where in a document a place of a validation is, and the shape that holds it.

    Where shapes are told apart by their type, a validation names that, too; a document does not.
    """
    place: list[int | str] = []
    found: object = shape
    holder: type[BaseModel] | None = shape
    for step in loc:
        found = _plain(found)
        if isinstance(found, type) and issubclass(found, BaseModel):
            holder = found
            field = found.model_fields.get(str(step))
            found = field.annotation if field else None
        elif get_origin(found) is UnionType or get_origin(found) is Union:
            found = next((each for each in get_args(found) if _told_by(each, step)), None)
            holder = found if isinstance(found, type) and issubclass(found, BaseModel) else None
            continue
        elif step == KEY:
            continue
        else:
            # What a list holds, or a mapping under its keys.
            inner = [each for each in get_args(found) if each is not ...]
            found = inner[-1] if inner else None
        place.append(step)
    return tuple(place), holder


def _plain(annotation: object) -> object:
    """Returns a type without what is annotated, and without None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        left = [each for each in get_args(annotation) if each is not NoneType]
        return _plain(left[0]) if len(left) == 1 else annotation
    return annotation


def _told_by(shape: object, tag: int | str) -> bool:
    """Returns whether a shape is the one of several that its type tells."""
    field = getattr(shape, "model_fields", {}).get("type")
    return field is not None and tag in get_args(field.annotation)


def one(kind: str) -> str:
    """Returns a kind with its article."""
    return f"{'an' if kind[:1] in 'aeio' else 'a'} {kind}"


def name_problem(kind: str, name: str) -> str | None:
    """Returns what is wrong with the name of a kind, or nothing."""
    pattern, form = (
        (THREE, "three levels: catalog.schema.name")
        if kind in OBJECTS
        else (TWO, "two levels: catalog.schema")
        if kind == "schema"
        else (ONE, "one level")
    )
    if pattern.fullmatch(name):
        return None
    fault = "there is a blank in it; " if re.search(r"\s", name) else ""
    said = f"{name[:120]!r} is no name of {one(kind)}"
    return f"{said}: {fault}{one(kind)} has {form} ({CHARACTERS})"


def kind_problem(kind: str, known: Iterable[str] = KINDS) -> str | None:
    """Returns what is wrong with a kind, or nothing."""
    return None if kind in set(known) else f"there is no kind {kind[:60]}; {nearest(kind, known)}"


def shared_replies(specs: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yields the tenants that would read another's replies, and what is wrong with that.

    Args:
        specs: The specs of all tenants, by name.
    """
    owners: dict[str, list[str]] = {}
    for name, spec in specs.items():
        for segment in spec.get("replies") or (name,):
            owners.setdefault(segment, []).append(name)
    for segment, names in owners.items():
        for name in names if len(names) > 1 else ():
            others = " and ".join(sorted({*names} - {name}))
            message = f"replies: {segment} is a reply topic of {others} already"
            yield name, f"{message}, and whoever shares one reads the other's answers"


def spec_of(kind: str, spec: dict[str, Any], under: Place = ("spec",)) -> Spec:
    """Returns a spec in the shape of its kind.

    Raises:
        Invalid: It has another shape.
    """
    return _shaped(KINDS[kind], spec, under)


def version_spec_of(kind: str, spec: dict[str, Any], under: Place = ("spec",)) -> Spec:
    """Returns the spec of a version in the shape of its kind.

    Raises:
        Invalid: It has another shape, or the kind has no versions.
    """
    if kind not in VERSIONED:
        known = ", ".join(VERSIONED)
        raise Invalid([Problem(under, f"{one(kind)} has no versions; these have: {known}")])
    return _shaped(VERSIONED[kind], spec, under)


def _shaped(shape: type[Spec], spec: dict[str, Any], under: Place) -> Spec:
    try:
        shaped = shape.model_validate(spec)
    except ValidationError as failure:
        raise Invalid(shape_problems(failure, shape, under)) from None
    if isinstance(shaped, ConnectionSpec) and shaped.secret and not leads(shaped.secret):
        known = "a store is env, file or one that SECRETS_STORES names"
        raise Invalid([Problem((*under, "secret"), f"{NOT_A_REFERENCE}; {known}")])
    return shaped
