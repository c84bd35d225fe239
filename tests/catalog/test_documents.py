"""What is said of documents that are wrong: the file, line and column, and what to do about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from catalog.declared.documents import Document, parse, write
from catalog.declared.plan import plan
from catalog.declared.problems import Invalid, spec_of
from tests.catalog.pictures import START, public_key

WRONG: dict[str, tuple[str, str]] = {
    "a field nobody knows": (
        "kind: schema\nname: main.lab\ncoment: x\n",
        "f:3:1: coment: there is no field coment; did you mean comment?",
    ),
    "a field of another kind": (
        "kind: endpoint\nname: a.b.c\naliases: {prod: 1}\n",
        "f:3:1: aliases: an endpoint has none",
    ),
    "a field twice": ("kind: catalog\nname: a\nname: b\n", "f:3:1: name is said twice"),
    "a key that is none": (
        "kind: user\nname: ann\nkeys:\n  - public_key: abc\n",
        "f:4:5: keys[0].public_key: a public key is 32 bytes of Ed25519 in base64",
    ),
    "a kind nobody knows": (
        "kind: modle\nname: a.b.c\n",
        "f:1:1: kind: there is no kind modle; did you mean model?",
    ),
    "a list": ("- kind: catalog\n", "f:1:1: a document is a mapping"),
    "a missing field": ("kind: catalog\n", "f:1:1: name: this field is missing"),
    "a name with too many levels": (
        "kind: schema\nname: a.b.c\n",
        "f:2:1: name: 'a.b.c' is no name of a schema: a schema has two levels: catalog.schema",
    ),
    "a name with a blank": (
        "kind: endpoint\nname: a.b.my chat\n",
        "f:2:1: name: 'a.b.my chat' is no name of an endpoint: there is a blank in it; ",
    ),
    "a number for text": (
        "kind: catalog\nname: a\ntags:\n  level: 3\n",
        "f:4:3: tags.level: this must be text; put it in quotes",
    ),
    "a part of a spec": (
        "kind: endpoint\nname: a.b.c\nspec:\n  routes:\n    - name: r\n      pol: p\n",
        "f:6:7: spec.routes[0].pol: there is no field pol; did you mean pool?",
    ),
    "a privilege nobody knows": (
        "kind: catalog\nname: a\ngrants:\n  ann: [QUERRY]\n",
        "f:4:9: grants.ann[0]: QUERRY is none of what may stand here; did you mean QUERY?",
    ),
    "a tag of YAML": ("kind: !secret catalog\n", "f:1:7: the tag !secret means nothing here"),
    "a thing that contains itself": ("kind: &a [*a]\nname: x\n", "f:1:7: this contains itself"),
    "a version of the wrong shape": (
        "kind: prompt\nname: a.b.c\nversions:\n  - spec: {text: x}\n",
        "f:4:12: versions[0].spec.text: there is no field text; there are: template",
    ),
    "no YAML": ("kind: [\n", "f:2:1: "),
    "the second document": (
        "kind: catalog\nname: a\n---\nkind: catalog\nnam: b\n",
        "f:5:1: nam: there is no field nam; did you mean name?",
    ),
}


SECRET = "sk-REALSECRET456"
# Specs that hold a secret where none may stand.
SECRETIVE: dict[str, dict[str, Any]] = {
    "a number": {"type": "openai", "url": "https://models.example", "secret": 56789012345},
    "a password in the address": {"type": "postgresql", "url": f"postgresql://bob:{SECRET}@db/x"},
    "a secret": {"type": "openai", "url": "https://models.example", "secret": SECRET},
    "a secret as the name of a variable": {
        "type": "openai",
        "url": "https://models.example",
        "secret": f"env:{SECRET}",
    },
    "a secret behind a store that there is not": {
        "type": "openai",
        "url": "https://models.example",
        "secret": f"nostore:{SECRET}",
    },
}


@pytest.mark.parametrize("kind", ["index", "table"])
def test_a_mask_is_of_a_column_that_there_is(kind: str) -> None:
    masks = [{"column": "name"}, {"column": "emial"}]
    spec = {"location": "lake:people"} if kind == "table" else {}
    columns = [{"name": "name"}, {"name": "email"}]
    with pytest.raises(Invalid) as failure:
        spec_of(kind, {**spec, "columns": columns, "column_masks": masks})
    assert str(failure.value) == "spec.column_masks[1].column: no column has this name"
    assert spec_of(kind, {**spec, "column_masks": masks})


@pytest.mark.parametrize("what", SECRETIVE)
def test_a_secret_in_the_wrong_place_is_not_quoted(what: str) -> None:
    spec = SECRETIVE[what]
    with pytest.raises(Invalid) as failure:
        spec_of("connection", spec)
    told = str(failure.value)
    assert SECRET not in told
    assert str(spec.get("secret", SECRET)) not in told
    if what != "a number":
        assert "secret" in told


def test_a_store_that_the_settings_name_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRETS_STORES", '{"vault": "package.module:function"}')
    spec = {"type": "openai", "url": "https://models.example", "secret": "vault:models/key"}
    assert spec_of("connection", spec).model_dump()["secret"] == "vault:models/key"


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_a_file_is_said_with_its_line(what: str) -> None:
    content, message = WRONG[what]
    with pytest.raises(Invalid) as failure:
        parse(content, "f")
    assert message in str(failure.value)


def test_what_is_wrong_around_a_spec_does_not_hide_what_is_wrong_in_it() -> None:
    with pytest.raises(Invalid) as failure:
        parse("kind: prompt\nname: a.b.c\ncoment: x\nspec: {a: 1}\nversions: [{spec: {}}]\n", "f")
    assert [str(each)[:6] for each in failure.value.problems] == ["f:3:1:", "f:4:8:", "f:5:19"]


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(Invalid) as failure:
        parse("kind: catlog\nname: a\n---\nkind: schema\nname: b\n", "f")
    assert [str(each)[:6] for each in failure.value.problems] == ["f:1:1:", "f:5:1:"]


def documents(*raw: dict[str, object]) -> list[Document]:
    return [Document.model_validate(each) for each in raw]


MAIN: dict[str, object] = {"kind": "catalog", "name": "main"}
LAB: dict[str, object] = {"kind": "schema", "name": "main.lab"}
CLASHING: dict[str, tuple[list[dict[str, object]], str]] = {
    "a circle of agents": (
        [
            MAIN,
            LAB,
            {
                "kind": "endpoint",
                "name": "main.lab.e",
                "spec": {"routes": [{"name": "r", "pool": "p", "model": "m"}]},
            },
            {
                "kind": "agent",
                "name": "main.lab.a",
                "spec": {"endpoint": "main.lab.e", "agents": ["main.lab.b"]},
            },
            {
                "kind": "agent",
                "name": "main.lab.b",
                "spec": {"endpoint": "main.lab.e", "agents": ["main.lab.a"]},
            },
        ],
        "need each other: leave one of these out",
    ),
    "a circle of groups": (
        [
            {"kind": "group", "name": "a", "spec": {"members": ["b"]}},
            {"kind": "group", "name": "b", "spec": {"members": ["a"]}},
        ],
        "need each other",
    ),
    "a name that another kind has": (
        [{"kind": "user", "name": "home", "spec": {"tenant": "home"}}],
        "documents[0].name: home is there already, as a tenant",
    ),
    "a parent that is not there": ([LAB], "documents[0].name: there is no main in the catalog"),
    "a principal that is not there": (
        [{**MAIN, "grants": {"operatr": ["USE"]}}],
        "documents[0].grants.operatr: there is no operatr in the catalog or in the documents; "
        "did you mean operator?",
    ),
    "a version that is not there": (
        [MAIN, LAB, {"kind": "model", "name": "main.lab.m", "aliases": {"prod": 1}}],
        "documents[2].aliases.prod: main.lab.m has no version 1",
    ),
    "one thing twice": ([MAIN, MAIN], "documents[1].name: document 1 speaks of main already"),
    "one key twice": (
        [
            {
                "kind": "user",
                "name": name,
                "spec": {"tenant": "home"},
                "keys": [{"public_key": public_key("a")}],
            }
            for name in ("ann", "bob")
        ],
        "documents[1].keys[0]: ",
    ),
    "what is granted and denied": (
        [{**MAIN, "grants": {"home": ["USE"]}, "denies": {"home": ["USE"]}}],
        "documents[0].grants.home: USE cannot be granted and denied at once",
    ),
}


@pytest.mark.parametrize("what", CLASHING)
def test_what_cannot_be_had_is_refused_with_its_place(what: str) -> None:
    raw, message = CLASHING[what]
    with pytest.raises(Invalid) as failure:
        plan(START, documents(*raw))
    assert message in str(failure.value)


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\u2029", "two\nlines", "\ufeff", "\xa0"])
def test_a_text_is_read_as_it_was_written_whatever_breaks_its_lines(text: str) -> None:
    [document] = parse(f"kind: catalog\nname: main\ncomment: {json.dumps(text)}\n", "f")
    assert parse(write([document]), "f") == [document]
    assert document.comment == text
