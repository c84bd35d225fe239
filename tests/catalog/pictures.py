"""Catalogs and documents for the laws of plans, and the naive catalog that steps are taken on."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from catalog.declared.documents import Document
from catalog.declared.picture import Picture
from catalog.declared.steps import Step
from schemas.kinds import EVERYONE, Described, Grant, Key, Privilege, Version

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ACTOR = "operator"

# Text that YAML 1.1 or 1.2 might take for something else stands among it.
texts = st.one_of(
    st.sampled_from(
        ["yes", "1", "1e5", "0x1f", "~", "2026-01-01", "null", "- a", "a: b", "'", " x "]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20),
)
maps = st.dictionaries(texts.filter(bool), texts, max_size=2)


def described(**fields: Any) -> Described:
    """Returns an entry with an owner, made at noon."""
    return Described.model_validate(
        {
            "owner": ACTOR,
            "etag": "1",
            "created_at": NOON,
            "created_by": ACTOR,
            "updated_at": NOON,
            "updated_by": ACTOR,
            **fields,
        }
    )


# Where catalogs begin: with whoever makes them.
START = Picture(
    described={
        ("tenant", "home"): described(spec={"replies": ["home"]}),
        ("service_principal", ACTOR): described(spec={"tenant": "home"}),
    }
)


def public_key(seed: str) -> str:
    """Returns what looks like a public key, another one for each seed."""
    return base64.b64encode(hashlib.sha256(seed.encode()).digest()).decode()


def taken(picture: Picture, steps: Sequence[Step]) -> Picture:
    """Returns a catalog after steps, taken in their order; one too early is an error."""
    for step in steps:
        picture = _taken(picture, step)
    return picture


def _taken(picture: Picture, step: Step) -> Picture:
    after = {field: each[1] for field, each in step.changes.items()}
    if step.verb == "create":
        assert step.entry not in picture.described
        _exists(picture, step)
        return replace(picture, described={**picture.described, step.entry: described(**after)})
    if step.verb in ("alias", "own", "update"):
        changed = picture.described[step.entry].model_dump() | after
        if step.verb == "own":
            assert any((kind, after["owner"]) in picture.described for kind in _PRINCIPALS)
        return replace(
            picture,
            described={**picture.described, step.entry: Described.model_validate(changed)},
        )
    if step.verb == "version":
        name, _, number = step.name.partition("@")
        there = picture.versions.get(name, {})
        assert (step.kind, name) in picture.described
        assert int(number) == len(there) + 1
        made = Version.model_validate(
            {"kind": step.kind, "created_at": NOON, "created_by": ACTOR, **after}
        )
        return replace(picture, versions={**picture.versions, name: {**there, int(number): made}})
    if step.verb == "grant":
        securable, _, principal = step.name.partition("/")
        grants = {**picture.grants.get(securable, {}), principal: Grant.model_validate(after)}
        return replace(picture, grants={**picture.grants, securable: grants})
    key = picture.keys.get(step.name)
    fields = key.model_dump() if key else {"not_before": NOON}
    made_key = Key.model_validate({**fields, **after})
    return replace(picture, keys={**picture.keys, step.name: made_key})


_PRINCIPALS = ("group", "service_principal", "tenant", "user")


def _exists(picture: Picture, step: Step) -> None:
    """What something lies in, and whom it names, must be there before it."""
    names = {name for kind, name in picture.described if kind not in _PRINCIPALS}
    principals = {name for kind, name in picture.described if kind in _PRINCIPALS}
    above = step.name.rpartition(".")[0]
    assert not above or above in names
    spec = step.after("spec") or {}
    assert {*spec.get("members", ()), *([spec["tenant"]] if "tenant" in spec else [])} <= principals
    for route in spec.get("routes", ()):
        if entity := route["entity"]:
            name, _, number = entity.partition("@")
            assert name in names
            assert not number or int(number) in picture.versions[name]


@st.composite
def catalogs(draw: st.DrawFn) -> list[Document]:
    """Draws documents that make up a catalog of their own, in any order."""
    found: list[dict[str, Any]] = [
        {"kind": "tenant", "name": "acme", "owner": draw(st.sampled_from([None, "ann", "acme"]))},
        {"kind": "user", "name": "ann", "spec": {"tenant": "acme"}},
        {"kind": "user", "name": "bob", "spec": {"tenant": "acme"}, "owner": "ann"},
        {"kind": "group", "name": "inner", "spec": {"members": draw(members("ann", "bob"))}},
        {"kind": "group", "name": "outer", "spec": {"members": draw(members("inner", "bob"))}},
        {"kind": "catalog", "name": "main"},
        {"kind": "schema", "name": "main.lab"},
        {"kind": "prompt", "name": "main.lab.greeting"},
        {"kind": "model", "name": "main.lab.judge", "spec": {"task": "chat"}},
        {"kind": "endpoint", "name": "main.lab.ask", "spec": draw(endpoints)},
    ]
    found[7]["versions"] = [{"spec": {"template": each or "x"}} for each in draw(some(texts))]
    found[8]["versions"] = [{"spec": {"uri": "file:a"}}, {"spec": {"uri": "file:b"}}]
    found[8]["aliases"] = draw(st.dictionaries(st.just("prod"), st.integers(1, 2)))
    found[1]["keys"] = [{"public_key": public_key(each)} for each in draw(some(texts))]
    for document in found:
        more = draw(
            st.fixed_dictionaries({}, optional={"comment": texts, "tags": maps, "properties": maps})
        )
        if document["kind"] in ("catalog", "endpoint", "schema"):
            more |= draw(grants())
        document.update(more)
    order = draw(st.permutations(found))
    return [
        Document.model_validate({k: v for k, v in each.items() if v is not None}) for each in order
    ]


def some(of: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Draws up to three different ones."""
    return st.lists(of, max_size=3, unique=True)


def members(*names: str) -> st.SearchStrategy[list[str]]:
    """Draws some of the names."""
    return st.lists(st.sampled_from(names), max_size=2, unique=True)


endpoints = st.sampled_from([None, "main.lab.judge", "main.lab.judge@2"]).map(
    lambda entity: {"routes": [{"name": "r", "pool": "p", "model": "m", "entity": entity}]}
)


@st.composite
def grants(draw: st.DrawFn) -> dict[str, Any]:
    """Draws grants and denies, of which no pair has one privilege twice."""
    said: dict[str, dict[str, list[str]]] = {"grants": {}, "denies": {}}
    for principal in draw(members("ann", EVERYONE, "outer")):
        for privilege in draw(st.lists(st.sampled_from(list(Privilege)), unique=True)):
            which = draw(st.sampled_from(["grants", "denies"]))
            said[which].setdefault(principal, []).append(privilege)
    return said
