"""Whether an index can be kept as the catalog defines it."""

from __future__ import annotations

from typing import Any

import pytest

from infra.changes.source import Source, Unfit, source_of
from schemas.indexes import IndexSpec
from streams.index.definition import columns, endpoint_of
from tests.seed import view_of

TABLE = "main.tests.docs"
ENDPOINT = {
    "kind": "endpoint",
    "name": "main.tests.words",
    "spec": {"routes": [{"name": "local", "pool": "words", "model": "words"}]},
}


def spec(**more: Any) -> IndexSpec:
    return IndexSpec.model_validate({"source": TABLE, "text": "body", **more})


def source(**table: Any) -> Source:
    return source_of(spec(), view_of([{"kind": "table", "name": TABLE, "spec": table}]))


def test_the_changes_of_a_table_lie_where_it_says() -> None:
    assert source(location="topic:orders") == Source("orders", captured=False)
    lies = source(location="public.docs", connection="main.tests.db", capture={})
    assert lies == Source("cdc.main.tests.docs.public.docs", captured=True)


@pytest.mark.parametrize(
    "table", [{"location": "lake:docs"}, {"location": "public.docs", "connection": "main.tests.db"}]
)
def test_a_table_without_a_topic_is_no_source(table: dict[str, Any]) -> None:
    with pytest.raises(Unfit, match="no topic") as unfit:
        source(**table)
    assert unfit.value.remedy


def test_a_table_that_is_not_there_is_no_source() -> None:
    with pytest.raises(Unfit, match="is no table"):
        source_of(spec(), view_of([]))


def test_an_endpoint_must_be_named_and_be_there() -> None:
    view = view_of([ENDPOINT])
    assert endpoint_of(spec(endpoint="main.tests.words"), view) == "main.tests.words"
    for wrong, said in ((spec(), "no embedding"), (spec(endpoint="main.tests.nobody"), "nobody")):
        with pytest.raises(Unfit, match=said):
            endpoint_of(wrong, view)


def test_the_columns_of_a_table_are_those_of_its_rows() -> None:
    row = {"type": "record", "name": "Value", "fields": [{"name": "id", "type": "long"}]}
    envelope = {
        "fields": [
            {"name": "before", "type": ["null", row]},
            {"name": "after", "type": ["null", "Value"]},
            {"name": "source", "type": "string"},
            {"name": "op", "type": "string"},
        ]
    }
    assert columns(envelope) == columns(row) == {"id"}
