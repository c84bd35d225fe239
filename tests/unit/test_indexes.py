"""What a search worker decides without its store: masks, versions, and which generation is seen."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, cast

import pytest

from infra.conditions import parse
from infra.latest import Latest
from infra.vectors import Place, supersedes
from infra.vectors.documents import Head
from schemas.events import IndexReported, IndexState, InferenceRouted, Reason, Route, Task
from schemas.indexes import IndexSpec
from schemas.search import Found, Hit, Rerank, Search, Sort
from tests.unit.asking import NOON, ask, routed
from workers.indexes.masks import MaskHides, check, masked
from workers.indexes.place import serving
from workers.indexes.writing import version_of
from workers.providers import ProviderRefused
from workers.providers.search import Searching

SPEC = IndexSpec.model_validate(
    {
        "key_columns": ["id"],
        "text": "{title}: {body}",
        "columns": [{"name": "id", "type": "long"}, {"name": "mail"}, {"name": "title"}],
    }
)
OVER = SPEC.model_copy(update={"source": "main.tests.table"})
HIT = Hit(
    key={"id": 7},
    text="sea: salt",
    columns={"id": 7, "mail": "carol@example.org", "title": None},
    vector=(0.5,),
)


@pytest.mark.parametrize(
    ("mask", "value", "shown"),
    [
        ("null", "secret", None),
        ("hash", "secret", sha256(b'"secret"').hexdigest()),
        ("hash", 12, sha256(b"12").hexdigest()),
        ("last4", "DE1234", "****1234"),
        ("last4", 123456, "****3456"),
        ("last4", "1234", "****"),
        ("last4", "", "****"),
        ("hash", None, None),
    ],
)
def test_a_mask_shows_no_more_than_it_says(mask: str, value: Any, shown: str | None) -> None:
    hit = HIT.model_copy(update={"columns": {"mail": value, "title": "sea"}})
    [seen] = masked(Found(hits=(hit,)), SPEC, {"mail": mask}).hits
    assert seen == hit.model_copy(update={"columns": {"mail": shown, "title": "sea"}})


def test_a_text_that_is_made_of_a_masked_column_is_withheld_with_its_vector() -> None:
    [seen] = masked(Found(hits=(HIT,)), SPEC, {"title": "last4"}).hits
    assert (seen.text, seen.vector) == ("", None)


def test_a_masked_key_is_masked_and_cannot_be_scanned() -> None:
    found = Found(hits=(HIT,))
    [seen] = masked(found, SPEC, {"id": "null"}).hits
    assert (seen.key, seen.columns["id"]) == ({"id": None}, None)
    with pytest.raises(MaskHides, match="keys are masked"):
        masked(found.model_copy(update={"next": "0a!"}), SPEC, {"id": "null"})


@pytest.mark.parametrize(
    ("search", "filters", "said"),
    [
        (Search(), "NOT (title = 'a' OR mail = 'b')", "filters: mail"),
        (Search(sort=(Sort(column="mail"),)), None, "sort: mail"),
        (Search(facets=("mail",)), None, "facets: mail"),
        (Search(operation="fetch", keys=({"mail": "a"},)), None, "keys: mail"),
    ],
)
def test_a_masked_column_cannot_be_asked_about(
    search: Search, filters: str | None, said: str
) -> None:
    condition = parse(filters, {"mail": "string", "title": "string"})
    check(search, condition, SPEC, {})
    with pytest.raises(MaskHides) as hidden:
        check(search, condition, SPEC, {"mail": "hash"})
    assert str(hidden.value) == f"{said} is masked for you: leave it out"


@pytest.mark.parametrize(
    "search",
    [
        Search(mode="full_text"),
        Search(mode="hybrid"),
        Search(rerank=Rerank(endpoint="main.tests.ranks")),
    ],
)
def test_words_of_a_masked_text_cannot_be_searched_for(search: Search) -> None:
    check(search, None, SPEC, {"mail": "hash"})
    with pytest.raises(MaskHides, match="made of columns that are masked"):
        check(search, None, SPEC, {"title": "hash"})
    check(Search(), None, SPEC, {"title": "hash"})


def test_what_was_asked_for_later_has_the_later_version_and_nothing_is_later_than_now() -> None:
    def version(seconds: float, **more: Any) -> str:
        return version_of(
            routed(request=ask(requested_at=NOON + timedelta(seconds=seconds)), **more)
        )

    early, late = version(-2), version(-1)
    assert early < late
    assert supersedes(late, Head(version=early), "")
    assert not supersedes(early, Head(version=late), "")
    assert version(3600)[:41] == version(0)[:41]
    one, other = (version(-1, decision_id=each) for each in ("a", "b"))
    assert one < other
    assert version(-1, decision_id="a", attempt=1, routed_at=NOON + timedelta(seconds=9)) == one


class Told:
    """Knows what was told of one index."""

    def __init__(self, told: IndexReported | None) -> None:
        self.told = told

    def get(self, key: str) -> IndexReported | None:
        return self.told


def stands(told: IndexReported | None) -> Latest[IndexReported]:
    return cast(Latest[IndexReported], Told(told))


REPORTED = IndexReported(index="main.tests.index", state=IndexState.BUILDING, reported_at=NOON)


def test_queries_see_the_generation_that_is_complete() -> None:
    told = replace(REPORTED, generation=2, building=3)
    assert serving("main.tests.index", OVER, stands(told)) == Place("main.tests.index", 2)


def test_what_callers_write_is_seen_in_the_generation_that_is_defined() -> None:
    spec = SPEC.model_copy(update={"generation": 4})
    assert serving("main.tests.index", spec, stands(None)) == Place("main.tests.index", 4)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (None, "is an indexer running?"),
        (replace(REPORTED, state=IndexState.UNKNOWN), "is an indexer running?"),
        (replace(REPORTED, waiting=12), "12 records of main.tests.table wait"),
        (
            replace(REPORTED, state=IndexState.FAILED, reason="no column a", remedy="name another"),
            "it is FAILED: no column a; name another",
        ),
        (replace(REPORTED, state=IndexState.PAUSED), "it is PAUSED"),
    ],
)
def test_an_index_that_is_not_built_yet_says_what_to_do(
    told: IndexReported | None, said: str
) -> None:
    with pytest.raises(ProviderRefused) as refused:
        serving("main.tests.index", OVER, stands(told))
    assert refused.value.refusal.reason is Reason.PROVIDER_UNAVAILABLE
    assert said in refused.value.refusal.message


@pytest.mark.parametrize("task", [Task.SEARCH, Task.WRITE, Task.CHAT])
async def test_nothing_is_answered_without_what_may_be_seen(task: Task) -> None:
    searching = Searching(None, None, None, AsyncExitStack())  # type: ignore[arg-type]
    event: InferenceRouted = routed(
        request=ask(task=task, search=json.dumps({})),
        route=Route(name="search", pool="search", model="main.tests.index"),
    )
    with pytest.raises(ProviderRefused) as refused:
        await anext(searching.answer(event))
    assert refused.value.refusal.reason is Reason.ROUTE_UNFIT
    with pytest.raises(ProviderRefused):
        await anext(searching.complete(event.request, event.route))
