"""What holds for functions over connections, whatever their arguments are."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import httpx2
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.calling import call
from workers.tools import Fault, ToolFailed
from workers.tools.http import _below
from workers.tools.statement import stated
from workers.tools.template import Asked, asked

BASE = httpx2.URL("https://service.example:8443/api/")
# What addresses are made of, more often than by chance.
TEXTS = st.text() | st.text(alphabet="./\\@:?#&=%2eF;{}+ \r\n\t\0a")
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
ANY = VALUES | st.lists(VALUES) | st.dictionaries(TEXTS, VALUES)
FILE = "GET /files/{id}/{+path}?x={x}&fixed=1{?more}"


def sent(arguments: dict[str, Any]) -> Asked | None:
    try:
        return asked(call(FILE, arguments, effect="pure"))
    except ToolFailed as failure:
        fault = failure.fault
    assert fault is Fault.ARGUMENTS
    return None


@given(id=ANY, path=ANY, x=ANY, more=ANY)
def test_no_argument_leads_to_another_host_or_out_of_its_place(
    id: object,
    path: object,
    x: object,
    more: object,
) -> None:
    request = sent({"id": id, "path": path, "x": x, "more": more})
    if request is None:
        return
    url = _below(BASE, request.target)
    assert (url.scheme, url.host, url.port) == ("https", "service.example", 8443)
    target = url.raw_path.decode()
    assert target == "/api" + request.target
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
    assert "#" not in target
    where, _, query = target.partition("?")
    before, files, *segments = where.removeprefix("/").split("/")
    assert (before, files) == ("api", "files")
    assert not {".", ".."} & {unquote(each) for each in segments}
    assert "" not in segments[:-1]
    assert "fixed=1" in query.split("&")


@given(first=ANY, second=ANY)
def test_a_statement_is_the_same_whatever_its_values_are(first: object, second: object) -> None:
    source = "SELECT :a::text, ':b', :b -- :a"
    statement = stated(call(source, {"a": first, "b": second}, effect="pure"))
    assert statement.text == "SELECT $1::text, ':b', $2 -- :a"
    assert len(statement.values) == 2


@given(source=TEXTS | st.text(alphabet=":a'\"$*/-\\eE\n ;"))
def test_a_source_without_a_known_name_is_sent_as_it_stands(source: str) -> None:
    try:
        statement = stated(call(source or "x", names=["zz"], effect="idempotent"))
    except ToolFailed:
        return
    assert statement.text == (source or "x")
