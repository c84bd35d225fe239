"""The catalog as a file: YAML documents, one for each thing, read with their places and written.

What a document does not say is left alone when it is applied. Scalars are read as YAML 1.2 reads
them: ``yes`` and ``2026-01-01`` are text.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import AwareDatetime, Field, ValidationError

from catalog.declared.problems import (
    KINDS,
    MOST_PROBLEMS,
    Invalid,
    Place,
    Problem,
    kind_problem,
    name_problem,
    one,
    shape_problems,
    spec_of,
    version_spec_of,
    written,
)
from schemas.kinds import PRINCIPALS, ROOT, VERSIONED, Privilege
from schemas.shapes import Name, Shape, Spec

# The document of the top of everything: only grants stand in it.
ROOT_KIND = "root"
PUBLIC_KEY_BYTES = 32
BREAKS = frozenset("\x85\u2028\u2029")
# Kinds of principals that sign.
SIGNING = frozenset({"service_principal", "user"})

# What plain scalars mean; PyYAML puts text that looks like these, or like YAML 1.1, in quotes.
FLOAT = re.compile(r"-?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?")
INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,999})")
WORDS: dict[str, bool | None] = {"": None, "false": False, "null": None, "true": True, "~": None}


class VersionDocument(Shape):
    """A version; without a number it has the next one after the version before it, from 1."""

    number: int | None = Field(default=None, gt=0)
    spec: dict[str, Any]
    comment: str = ""


class KeyDocument(Shape):
    """A key that a principal signs with."""

    public_key: str
    expires_at: AwareDatetime | None = None


class Document(Shape):
    """One thing as it shall be; what is None is not said and left alone.

    Attributes:
        grants: Privileges by principal; a pair that is named here or in ``denies`` is set exactly.
        keys: Of a principal.
    """

    kind: str
    name: str
    owner: Name | None = None
    comment: str | None = None
    tags: dict[str, str] | None = None
    properties: dict[str, str] | None = None
    spec: dict[str, Any] | None = None
    versions: tuple[VersionDocument, ...] | None = None
    aliases: dict[str, int] | None = None
    grants: dict[str, tuple[Privilege, ...]] | None = None
    denies: dict[str, tuple[Privilege, ...]] | None = None
    keys: tuple[KeyDocument, ...] | None = None


def document_of(raw: object) -> Document:
    """Returns the document in plain data.

    Raises:
        Invalid: It is none; every problem with its place in the data.
    """
    if not isinstance(raw, dict):
        raise Invalid([Problem((), "a document is a mapping that begins with kind and name")])
    try:
        document = Document.model_validate(raw)
    except ValidationError as failure:
        raise Invalid([*shape_problems(failure, Document), *_spec_problems(raw)]) from None
    if problems := [*_problems(document), *_spec_problems(raw)]:
        raise Invalid(problems)
    return document


def documents_of(raw: Sequence[dict[str, Any]]) -> list[Document]:
    """Returns documents from plain data.

    Raises:
        Invalid: One is none; the places say which and where, of the first 100 problems.
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    for number, each in enumerate(raw):
        try:
            documents.append(document_of(each))
        except Invalid as invalid:
            problems += [
                Problem(("documents", number, *problem.place), problem.message)
                for problem in invalid.problems
            ]
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise Invalid(problems[:MOST_PROBLEMS])
    return documents


def _problems(document: Document) -> Iterator[Problem]:
    kind = document.kind
    if kind == ROOT_KIND:
        if document.name != ROOT:
            yield Problem(("name",), f'the root is called "{ROOT}"')
        yield from _misplaced(document, {"denies", "grants"}, "the root holds grants only")
        return
    if problem := kind_problem(kind, [*KINDS, ROOT_KIND]):
        yield Problem(("kind",), problem)
        return
    if problem := name_problem(kind, document.name):
        yield Problem(("name",), problem)
    yield from _misplaced(document, _fields(kind), f"{one(kind)} has none")
    numbers = [number for number, _ in numbered(document)]
    if numbers != sorted(set(numbers)):
        yield Problem(("versions",), "the numbers of versions must rise")
    for number, key in enumerate(document.keys or ()):
        try:
            public_key_of(key.public_key)
        except ValueError as problem:
            yield Problem(("keys", number, "public_key"), str(problem))


def _fields(kind: str) -> set[str]:
    fields = {"comment", "owner", "properties", "spec", "tags"}
    if kind in VERSIONED:
        fields |= {"aliases", "versions"}
    if kind in SIGNING:
        fields |= {"keys"}
    return fields if kind in PRINCIPALS else fields | {"denies", "grants"}


def numbered(document: Document) -> Iterator[tuple[int, VersionDocument]]:
    """Yields the versions of a document with their numbers."""
    number = 0
    for version in document.versions or ():
        number = version.number or number + 1
        yield number, version


def _misplaced(document: Document, fields: set[str], why: str) -> Iterator[Problem]:
    for field in document.model_fields_set - fields - {"kind", "name"}:
        if getattr(document, field) is not None:
            yield Problem((field,), why)


def _spec_problems(raw: dict[str, Any]) -> Iterator[Problem]:
    """Yields what is wrong with the specs in plain data, whatever else is wrong with that."""
    kind, versions = raw.get("kind"), raw.get("versions")
    if not isinstance(kind, str) or kind not in KINDS:
        return
    yield from _misshapen(spec_of, kind, raw, ())
    if kind in VERSIONED and isinstance(versions, list):
        for at, version in enumerate(versions):
            yield from _misshapen(version_spec_of, kind, version, ("versions", at))


def _misshapen(
    shaped: Callable[[str, dict[str, Any], Place], Spec], kind: str, holder: object, under: Place
) -> Iterator[Problem]:
    spec = holder.get("spec") if isinstance(holder, dict) else None
    if isinstance(spec, dict):
        try:
            shaped(kind, spec, (*under, "spec"))
        except Invalid as invalid:
            yield from invalid.problems


def public_key_of(text: str) -> bytes:
    """Returns the 32 bytes of a public key in base64.

    Raises:
        ValueError: It is none.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        raise ValueError(
            "a public key is 32 bytes of Ed25519 in base64; tessera key create shows it"
        )
    return key


@dataclass(frozen=True, slots=True)
class Placed:
    """A document, and where each of its parts stands in a file."""

    document: Document
    root: yaml.Node
    file: str

    def where(self, place: Place) -> str:
        """Returns ``file:line:column`` of a part, or of what is nearest above it."""
        return f"{self.file}:{_at(_node(self.root, place).start_mark)}"


def parse(text: str, file: str) -> list[Document]:
    """Returns the documents in YAML text; see ``placed``."""
    return [each.document for each in placed(text, file)]


def placed(text: str, file: str) -> list[Placed]:
    """Returns the documents in YAML text with their places.

    Args:
        text: One or more documents with ``---`` between them.
        file: What it is called in messages.

    Raises:
        Invalid: Something is wrong; every message begins with ``file:line:column``.
    """
    found, problems = [], []
    for root in _composed(text, file):
        try:
            plain = _plain(root, frozenset())
        except Invalid as invalid:
            problems += [Problem((), f"{file}:{each}") for each in invalid.problems]
            continue
        if plain is None:
            continue
        try:
            found.append(Placed(document_of(plain), root, file))
        except Invalid as invalid:
            problems += [_with_place(each, root, file) for each in invalid.problems]
    if problems:
        raise Invalid(problems)
    return found


def _composed(text: str, file: str) -> list[yaml.Node]:
    try:
        return [node for node in yaml.compose_all(text, yaml.SafeLoader) if node is not None]
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        where = _at(mark) if mark else "1:1"
        raise Invalid([Problem((), f"{file}:{where}: {failure.problem}")]) from None
    except (RecursionError, yaml.YAMLError) as failure:
        said = str(failure).partition("\n")[0] or "nested too deeply"
        raise Invalid([Problem((), f"{file}:1:1: {said}")]) from None


def _at(mark: yaml.Mark) -> str:
    return f"{mark.line + 1}:{mark.column + 1}"


def _with_place(problem: Problem, root: yaml.Node, file: str) -> Problem:
    """Returns a problem with line and column of the node that is at fault."""
    mark = _node(root, problem.place).start_mark
    where = written(problem.place)
    return Problem((), f"{file}:{_at(mark)}: {where}{': ' if where else ''}{problem.message}")


def _node(root: yaml.Node, place: Place) -> yaml.Node:
    """Returns the node at a place: for a field its name, or what is nearest above."""
    for depth, step in enumerate(place):
        last = depth == len(place) - 1
        if isinstance(root, yaml.MappingNode):
            found = [pair for pair in root.value if pair[0].value == str(step)]
            if not found:
                return root
            # Of an inner step the value leads on; the last one is shown where its name stands.
            root = found[0][0 if last else 1]
        elif isinstance(root, yaml.SequenceNode) and isinstance(step, int):
            root = root.value[step]
    return root


def _plain(node: yaml.Node, above: frozenset[int]) -> Any:
    """Returns what a node says as plain data."""
    if id(node) in above:
        raise _refused(node, "this contains itself")
    if not node.tag.startswith("tag:yaml.org,2002:"):
        raise _refused(node, f"the tag {node.tag} means nothing here")
    inner = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, inner)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(each, inner) for each in node.value]
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return _scalar(node.value) if plain else node.value


def _mapping(node: yaml.MappingNode, inner: frozenset[int]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, value in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise _refused(name, "a field's name is text")
        if name.value in said:
            raise _refused(name, f"{name.value} is said twice")
        said[name.value] = _plain(value, inner)
    return said


def _refused(node: yaml.Node, message: str) -> Invalid:
    return Invalid([Problem((), f"{_at(node.start_mark)}: {message}")])


def _scalar(text: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    return float(text) if FLOAT.fullmatch(text) else text


class _Dumper(yaml.SafeDumper):
    """Writes a text with a line break of Unicode's in it so that it is read as it was."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if set(text) & BREAKS else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def write(documents: Iterable[Document]) -> str:
    """Returns documents as YAML text; ``parse`` reads the same from it."""
    plain = [document.model_dump(mode="json", exclude_unset=True) for document in documents]
    text: str = yaml.dump_all(
        plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, explicit_start=True, width=100
    )
    return text
