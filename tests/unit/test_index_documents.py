"""Rows become documents: the same each time, in the types of the index, or refused."""

from __future__ import annotations

import doctest
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from types import ModuleType
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.changes.rows import Change, Op
from infra.conditions import instant
from infra.documents import content, texts
from infra.documents.content import kept
from infra.documents.texts import TemplateInvalid, columns_of_text, problems, text_of
from infra.vectors import document_id
from schemas.indexes import Chunking, ColumnType, IndexSpec
from streams.index.documents import RowInvalid, document_of

INDEX = "main.kb.docs"
SPEC = IndexSpec.model_validate(
    {
        "source": "main.kb.docs",
        "text": "{title}: {body}",
        "columns": [
            {"name": "made", "type": "date"},
            {"name": "price", "type": "double"},
            {"name": "tags"},
        ],
        "chunking": {"by": "sentence", "size": 16},
        "document_prefix": "passage: ",
    }
)
ROW = {
    "id": 1,
    "title": "Cats",
    "body": "They sleep all day, as everybody knows. At night they hunt mice and other animals.",
    "made": "2024-02-29T12:00:00.123456Z",
    "price": "1.50",
    "tags": ["a", "b"],
    "secret": "not indexed",
}
CHANGE = Change(op=Op.UPSERT, key={"id": 1}, row=ROW, version="7", committed_at=5)


def test_a_row_is_a_document_with_its_chunks_columns_and_inputs() -> None:
    document = document_of(INDEX, SPEC, CHANGE)
    assert document.id == document_id(INDEX, {"id": 1})
    assert document.columns == {
        "made": "2024-02-29T12:00:00.123456Z", "price": 1.5, "tags": '["a","b"]',
    }  # fmt: skip
    assert document.inputs == {
        "title": "Cats", "body": ROW["body"], "tags": '["a","b"]',
    }  # fmt: skip
    assert [(chunk.position, chunk.text) for chunk in document.chunks] == [
        (0, "Cats: They sleep all day, as everybody knows."),
        (1, "At night they hunt mice and other animals."),
    ]
    assert (document.version, document.committed_at, document.deleted) == ("7", 5, False)


def test_a_digest_is_of_what_is_embedded() -> None:
    chunk = document_of(INDEX, SPEC, CHANGE).chunks[1]
    assert chunk.digest == sha256(f"passage: {chunk.text}".encode()).hexdigest()


def test_the_same_change_is_the_same_document() -> None:
    assert document_of(INDEX, SPEC, CHANGE) == document_of(INDEX, SPEC, CHANGE)


def test_only_chunks_whose_text_changed_have_another_digest() -> None:
    first, second = document_of(INDEX, SPEC, CHANGE).chunks
    row = {**ROW, "body": str(ROW["body"]).replace("mice", "rats"), "price": "2"}
    changed = document_of(INDEX, SPEC, replace(CHANGE, row=row)).chunks
    assert changed[0] == first
    assert changed[1].digest != second.digest


def test_a_value_filled_in_from_the_inputs_gives_the_same_document() -> None:
    document = document_of(INDEX, SPEC, CHANGE)
    filled = replace(CHANGE, row={**ROW, **document.inputs})
    assert document_of(INDEX, SPEC, filled) == document


def test_a_deleted_row_keeps_its_id_and_nothing_else() -> None:
    change = replace(CHANGE, op=Op.DELETE, row={})
    document = document_of(INDEX, SPEC, change)
    assert document.deleted
    assert (document.id, document.chunks, document.columns, document.inputs) == (
        document_id(INDEX, {"id": 1}), (), {}, {},
    )  # fmt: skip


def test_columns_that_a_row_lacks_are_null() -> None:
    document = document_of(INDEX, SPEC, replace(CHANGE, row={"id": 1, "title": None}))
    assert document.columns == {"made": None, "price": None, "tags": None}
    assert [chunk.text for chunk in document.chunks] == [":"]


@pytest.mark.parametrize("body", [None, "", " \n\n "])
def test_a_row_without_text_has_no_chunk(body: str | None) -> None:
    spec = SPEC.model_copy(update={"text": "body"})
    assert document_of(INDEX, spec, replace(CHANGE, row={**ROW, "body": body})).chunks == ()


def test_a_value_that_is_still_left_out_is_never_embedded() -> None:
    change = replace(CHANGE, unavailable=frozenset({"body", "secret"}))
    with pytest.raises(RowInvalid, match='column "body" did not change and was left out'):
        document_of(INDEX, SPEC, change)
    document_of(INDEX, SPEC, replace(CHANGE, unavailable=frozenset({"secret"})))


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEPT: list[tuple[ColumnType, object, object]] = [
    ("boolean", False, False),
    ("date", "2026-05-01T14:00:00+02:00", "2026-05-01T12:00:00Z"),
    ("date", "2026-05-01Z", "2026-05-01T00:00:00Z"),
    ("date", "2026-05-01", "2026-05-01T00:00:00Z"),
    ("date", 1_777_636_800_000, "2026-05-01T12:00:00Z"),
    ("date", 1_777_636_800_000_001, "2026-05-01T12:00:00.000001Z"),
    ("date", -1, "1969-12-31T23:59:59.999000Z"),
    ("date", NOON.astimezone(timezone(timedelta(hours=5))), "2026-05-01T12:00:00Z"),
    ("date", NOON.replace(tzinfo=None), "2026-05-01T12:00:00Z"),
    ("date", date(2026, 5, 1), "2026-05-01T00:00:00Z"),
    ("double", 5, 5.0),
    ("double", Decimal("1.50"), 1.5),
    ("double", "-1.5e3", -1500.0),
    ("long", 2**63 - 1, 2**63 - 1),
    ("long", -(2**63), -(2**63)),
    ("long", Decimal("7.00"), 7),
    ("long", "42", 42),
    ("string", "é", "é"),
    ("string", 5, "5"),
    ("string", Decimal("1.50"), "1.50"),
    ("string", True, "true"),
    ("string", {"a": [1, None, "é"]}, '{"a":[1,null,"é"]}'),
    ("string", NOON, "2026-05-01T12:00:00Z"),
    ("string", b"\xff", "/w=="),
]


@pytest.mark.parametrize(("kind", "value", "expected"), KEPT)
def test_values_are_kept_in_the_types_of_their_columns(
    kind: ColumnType, value: object, expected: object
) -> None:
    found = kept("column", kind, value)
    assert (found, type(found)) == (expected, type(expected))


WRONG: list[tuple[ColumnType, object, str]] = [
    ("boolean", 1, "a number"),
    ("boolean", "true", "text"),
    ("date", "infinity", "text"),
    ("date", "+292278994-08-16Z", "text"),
    ("date", True, "a boolean"),
    ("date", 10**30, "a number"),
    ("double", "NAN", "text"),
    ("double", "twelve", "text"),
    ("double", True, "a boolean"),
    ("double", [1.5], "a list"),
    ("double", 10**400, "a number"),
    ("long", 1.5, "a number"),
    ("long", "1.5", "text"),
    ("long", "1e999999999", "text"),
    ("long", float("inf"), "a number"),
    ("long", 2**63, "a number"),
    ("long", {"a": 1}, "a record"),
    ("string", {1, 2}, "what came"),
    ("string", {"a": {1, 2}}, "a record"),
]


@pytest.mark.parametrize(("kind", "value", "called"), WRONG)
def test_a_value_of_another_type_is_refused_by_name(
    kind: ColumnType, value: object, called: str
) -> None:
    with pytest.raises(RowInvalid) as refused:
        kept("price", kind, value)
    assert str(refused.value) == f'column "price" is kept as {kind}, which {called} here is not'


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.decimals()
    | st.datetimes() | st.dates() | st.times() | st.binary(max_size=4) | st.uuids(),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=3), some),
    max_leaves=4,
)  # fmt: skip


@given(VALUES, st.sampled_from(get_args(ColumnType)))
def test_whatever_comes_is_kept_in_its_type_or_refused(value: Any, kind: ColumnType) -> None:
    try:
        found = kept("c", kind, value)
    except RowInvalid:
        return
    if kind == "date" and found is not None:
        assert instant(str(found))
    else:
        types = {"boolean": bool, "double": float, "long": int, "string": str, "date": str}
        assert type(found) in (types[kind], type(None))
    assert kept("c", kind, found) == found


def test_an_error_names_no_value() -> None:
    with pytest.raises(RowInvalid) as refused:
        document_of(INDEX, SPEC, replace(CHANGE, row={**ROW, "price": "hunter2"}))
    assert "hunter2" not in str(refused.value)
    assert '"price"' in str(refused.value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("title", "Cats"),
        ("{title}", "Cats"),
        ("{{{title}}} {{}}", "{Cats} {}"),
        ("{no such}|{price}", "|1.50"),
        ("{title:>5}", ""),
    ],
)
def test_a_template_puts_columns_into_a_text(template: str, text: str) -> None:
    assert text_of(template, ROW) == text


@pytest.mark.parametrize("template", ["{title", "title}", "{}", "{a{b}}", "{{title}", "a } b"])
def test_an_odd_brace_is_told_with_its_place(template: str) -> None:
    with pytest.raises(TemplateInvalid, match=r"text has an odd [{}] at character \d+: write"):
        columns_of_text(template)


@given(st.text(max_size=20))
def test_doubled_braces_are_the_text_itself(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert text_of(doubled + "{x}", {}) == text


def test_a_good_definition_has_no_problems() -> None:
    assert problems(SPEC, ROW) == []
    assert problems(SPEC, ()) == []
    assert problems(IndexSpec(), ()) == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"text": "{title}: {size}"}, "text names size, but the source has only body, id, made"),
        ({"text": "{title"}, "text has an odd {"),
        ({"text": "just {{words}}"}, "text names no column"),
        ({"text": ""}, "text names no column"),
        ({"key_columns": ["id", "part"]}, "key_columns names part, but"),
        ({"columns": [{"name": "size"}]}, "columns names size, but"),
        ({"chunking": {"by": "tokens", "size": 32, "overlap": 17}}, "make it at most half, 16"),
    ],
)
def test_a_problem_of_a_definition_is_told(changed: dict[str, Any], problem: str) -> None:
    spec = IndexSpec.model_validate({**SPEC.model_dump(), **changed})
    [found] = problems(spec, ROW)
    assert problem in found


def test_no_text_at_all_is_cut() -> None:
    spec = SPEC.model_copy(update={"text": "", "chunking": Chunking(), "source": None})
    assert document_of(INDEX, spec, CHANGE).chunks == ()


@pytest.mark.parametrize("module", [content, texts])
def test_the_examples_of_the_docs_hold(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
