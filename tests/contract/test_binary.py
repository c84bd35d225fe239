"""Avro's encoding of plain values: the same bytes as fastavro's, and refused where it refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import binary

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 12}
INSTANTS = st.datetimes(timezones=st.just(UTC))


def by_fastavro(schema: Any, value: object) -> bytes:
    body = BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), value)
    return body.getvalue()


KINDS: dict[str, tuple[Any, Callable[[Any], bytes], st.SearchStrategy[Any]]] = {
    "bytes": ("bytes", binary.raw, st.binary(max_size=3000)),
    "date": ({"type": "int", "logicalType": "date"}, binary.days, st.dates()),
    "decimal": (
        DECIMAL,
        partial(binary.decimal, precision=38, scale=12),
        st.decimals(-(10**25), 10**25, places=12) | st.integers(-(10**9), 10**9).map(Decimal),
    ),
    "double": ("double", binary.double, st.floats()),
    "float": ("float", binary.single, st.floats(width=32)),
    "int": ("int", binary.long, st.integers(-(2**31), 2**31 - 1)),
    "long": ("long", binary.long, st.integers(-(2**63), 2**63 - 1)),
    "micros": ({"type": "long", "logicalType": "timestamp-micros"}, binary.micros, INSTANTS),
    "millis": ({"type": "long", "logicalType": "timestamp-millis"}, binary.millis, INSTANTS),
    "string": ("string", binary.text, st.text(st.characters(exclude_categories=["Cs"]))),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_value_is_the_bytes_that_fastavro_makes_of_it(kind: str, data: st.DataObject) -> None:
    schema, encode, values = KINDS[kind]
    value = data.draw(values)
    assert encode(value) == by_fastavro(schema, value)


@given(value=st.integers())
@example(value=2**63)
@example(value=-(2**63) - 1)
@example(value=binary.SMALL)
@example(value=binary.SMALL - 1)
def test_an_integer_that_fastavro_refuses_is_refused(value: int) -> None:
    try:
        expected = by_fastavro("long", value)
    except OverflowError:
        with pytest.raises(OverflowError):
            binary.long(value)
    else:
        assert binary.long(value) == expected


@pytest.mark.parametrize("value", ["1e-13", "1" * 39, "NaN", "Infinity"])
def test_a_decimal_that_its_schema_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        binary.decimal(Decimal(value), 38, 12)


def test_instants_before_the_epoch_are_rounded_as_fastavro_rounds_them() -> None:
    before = datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC) + timedelta(microseconds=999_999)
    assert binary.millis(before) == by_fastavro(KINDS["millis"][0], before)
    assert binary.days(date(1, 1, 1)) == by_fastavro(KINDS["date"][0], date(1, 1, 1))
