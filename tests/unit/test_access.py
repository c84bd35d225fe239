"""What of an index somebody may see follows from the filters and masks of index and table."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.catalog import CatalogView
from infra.conditions import matches, parse
from schemas.search import Access
from streams.gateway.access import access_of
from tests.seed import view_of
from tests.unit.asking import LIMITS

COLUMNS = {"dept": "string", "level": "long"}
ROWS = [
    {"dept": dept, "level": level}
    for dept, level in product(["hr", "it", "law", None], [1, 2, 3, None])
]
WHERE = ["dept = 'hr'", "level < 2", "dept = 'it' OR level = 3", "level >= 2"]
PEOPLE = ["ann", "bob", "cid", "eve"]
MEMBERS = {"writers": ["bob"], "staff": ["ann", "writers"]}
GROUPS = {"acme": PEOPLE, "everyone": PEOPLE, "staff": ["ann", "bob"], "writers": ["bob"]}
# Ann owns the table, bob may manage the index.
OWNERS = {"index": {"bob"}, "table": {"ann"}}
INDEX, TABLE = "main.tests.index", "main.tests.table"


def view(
    index: list[dict[str, Any]],
    table: list[dict[str, Any]] | None = None,
    masks: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], []),
) -> CatalogView:
    """Returns a catalog with an index that has row filters; over a table, if that has a list."""
    spec: dict[str, Any] = {"row_filters": index, "column_masks": masks[0]}
    documents: list[dict[str, Any]] = [
        {"kind": "tenant", "name": "acme"},
        *({"kind": "user", "name": name, "spec": {"tenant": "acme"}} for name in PEOPLE),
        *({"kind": "group", "name": name, "spec": {"members": of}} for name, of in MEMBERS.items()),
    ]
    if table is not None:
        spec["source"] = TABLE
        of_table = {"location": "topic:rows", "row_filters": table, "column_masks": masks[1]}
        documents.append({"kind": "table", "name": TABLE, "owner": "ann", "spec": of_table})
    documents.append(
        {"kind": "index", "name": INDEX, "spec": spec, "grants": {"bob": ["MANAGE", "QUERY"]}}
    )
    return view_of(documents, LIMITS)


def seen(access: Access) -> list[dict[str, Any]]:
    """Returns the rows that somebody sees, as a store would find them."""
    groups = [[parse(each, COLUMNS) for each in group] for group in access.where]  # type: ignore[arg-type]
    return [
        row
        for row in ROWS
        if all(any(each is None or matches(each, row) for each in group) for group in groups)
    ]


def expected(who: str, *lists: tuple[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the rows that somebody sees, decided row by row and rule by rule."""

    def is_named(rule: dict[str, Any]) -> bool:
        return any(who == name or who in GROUPS.get(name, ()) for name in rule["to"])

    def passes(row: dict[str, Any], kind: str, rules: list[dict[str, Any]]) -> bool:
        mine = [rule for rule in rules if is_named(rule)]
        if not rules or (not mine and who in OWNERS[kind]):
            return True
        conditions = [parse(rule["where"], COLUMNS) for rule in mine]  # type: ignore[arg-type]
        return any(each is not None and matches(each, row) for each in conditions)

    return [row for row in ROWS if all(passes(row, kind, rules) for kind, rules in lists)]


rules = st.lists(
    st.fixed_dictionaries(
        {
            "to": st.lists(st.sampled_from([*PEOPLE, *GROUPS, "nobody"]), min_size=1, max_size=3),
            "where": st.sampled_from(WHERE),
        }
    ),
    max_size=4,
)


@given(of_index=rules, of_table=st.none() | rules)
def test_everybody_sees_what_the_rules_let_them(
    of_index: list[dict[str, Any]], of_table: list[dict[str, Any]] | None
) -> None:
    catalog = view(of_index, of_table)
    for who in PEOPLE:
        of_both = [("index", of_index), *([("table", of_table)] if of_table is not None else [])]
        assert seen(access_of(who, INDEX, catalog)) == expected(who, *of_both), who


def test_all_rows_are_seen_where_there_is_no_filter() -> None:
    assert access_of("eve", INDEX, view([], [])) == Access()


def test_nobody_whom_no_filter_names_sees_anything() -> None:
    catalog = view([{"to": ["ann"], "where": WHERE[0]}])
    assert seen(access_of("eve", INDEX, catalog)) == []
    assert seen(access_of("nobody_known", INDEX, catalog)) == []


def test_who_manages_an_index_sees_all_that_no_filter_takes_from_them() -> None:
    catalog = view([{"to": ["ann"], "where": WHERE[0]}])
    assert seen(access_of("bob", INDEX, catalog)) == ROWS


def test_nothing_is_seen_of_a_table_that_the_catalog_lacks() -> None:
    catalog = view_of(
        [
            {"kind": "tenant", "name": "acme"},
            {"kind": "index", "name": INDEX, "spec": {"source": TABLE}},
        ],
        LIMITS,
    )
    assert seen(access_of("acme", INDEX, catalog)) == []


def test_a_condition_cannot_undo_another() -> None:
    loose = [{"to": ["everyone"], "where": "level = 1) OR (level > 0"}]
    access = access_of("eve", INDEX, view(loose, [{"to": ["eve"], "where": WHERE[0]}]))
    assert access.where == (("level = 1) OR (level > 0",), (WHERE[0],))
    with pytest.raises(ValueError, match="character"):
        seen(access)


MASKS = ([{"column": "dept", "mask": "last4", "unless": ["staff"]}], [{"column": "dept"}])


@pytest.mark.parametrize(
    ("who", "masks", "shown"),
    [
        ("ann", (MASKS[0], []), {}),
        ("bob", (MASKS[0], []), {}),
        ("eve", (MASKS[0], []), {"dept": "last4"}),
        ("ann", MASKS, {"dept": "null"}),
        ("eve", (MASKS[0], [{"column": "dept", "mask": "hash"}]), {"dept": "hash"}),
        ("ann", ([], [{"column": "level", "mask": "hash"}]), {"level": "hash"}),
    ],
)
def test_a_column_is_masked_as_the_strictest_mask_says_that_holds(
    who: str, masks: Any, shown: dict[str, str]
) -> None:
    assert access_of(who, INDEX, view([], [], masks)).masks == shown
