"""Searches, writes and what indexes answer: their shapes, their texts, and who may ask so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.tokens import estimate
from schemas import topics
from schemas.events import (
    Completion,
    FinishReason,
    InferenceRouted,
    Reason,
    Task,
    Usage,
)
from schemas.openai import FormInvalid
from schemas.policies import PolicySpec
from schemas.search import Access, Found, Hit, Search, Write, read
from schemas.searching import texts_of, with_texts, without_vectors
from streams.gateway.checks import first_refusal
from streams.gateway.rows import row
from streams.guards import Released, Seal, guard_completion, guard_request
from streams.guards.asking import (
    answer_texts,
    request_texts,
    with_answer_texts,
    with_request_texts,
)
from tests.seed import view_of
from tests.unit.asking import CATALOG, LIMITS, NOON, ask, asked, completed, only, routed
from tests.unit.deciding import admit

INDEX, OVER, RANKS = "main.tests.index", "main.tests.over", "main.tests.ranks"
VIEW = view_of(
    [
        *CATALOG,
        {
            "kind": "index",
            "name": INDEX,
            "spec": {"key_columns": ["id"], "text": "body"},
            "grants": {"ann": ["MODIFY"]},
        },
        {"kind": "table", "name": "main.tests.table", "spec": {"location": "topic:rows"}},
        {
            "kind": "index",
            "name": OVER,
            "spec": {"source": "main.tests.table", "text": "body"},
            "grants": {"ann": ["MODIFY"]},
        },
        {
            "kind": "endpoint",
            "name": RANKS,
            "spec": {"routes": [{"name": "one", "pool": "ranks", "model": "ranks"}]},
            "denies": {"ann": ["QUERY"]},
        },
    ],
    LIMITS,
)
MAIL = "carol@example.org"
MASKING = [
    (
        "main.tests.masking",
        PolicySpec.model_validate(
            {
                "rules": [
                    {
                        "name": "mail",
                        "type": "pii",
                        "on": ["input", "output"],
                        "entities": {"EMAIL_ADDRESS": "mask"},
                    }
                ]
            }
        ),
    )
]
SEAL = Seal(b"s" * 32)


def searching(document: Any = "{}", **more: Any) -> Any:
    text = document if isinstance(document, str) else json.dumps(document)
    plain = {"task": Task.SEARCH, "endpoint": INDEX, "messages": (), "query": "sea", "search": text}
    return ask(**{**plain, **more})


def writing(document: Any, **more: Any) -> Any:
    return searching(document, **{"task": Task.WRITE, "query": None, **more})


UPSERT = {"operation": "upsert", "rows": [{"id": 1, "body": "salt water"}]}

REFUSED: dict[str, tuple[Any, Reason, str, str]] = {
    "a chat with an index": (ask(endpoint=INDEX), Reason.REQUEST_INVALID, "task", "search it"),
    "a fetch of nothing": (
        searching({"operation": "fetch"}, query=None),
        Reason.REQUEST_INVALID,
        "search",
        "keys are what fetch asks for",
    ),
    "a number of hits that is none": (
        searching({"k": "many"}),
        Reason.REQUEST_INVALID,
        "search",
        "search: k: ",
    ),
    "a page beyond what can be reached": (
        searching({"k": 10, "offset": 9_995}),
        Reason.REQUEST_INVALID,
        "search",
        "scan instead",
    ),
    "a ranking by whom one may not query": (
        searching({"rerank": {"endpoint": RANKS}}),
        Reason.PRIVILEGE_MISSING,
        "search",
        RANKS,
    ),
    "a scan for something": (
        searching({"operation": "scan"}),
        Reason.REQUEST_INVALID,
        "query",
        "takes no query",
    ),
    "a search for nothing": (
        searching(query=" "),
        Reason.REQUEST_INVALID,
        "query",
        "query is empty",
    ),
    "a search for words by a vector alone": (
        searching({"mode": "full_text", "vector": [1.0]}, query=None),
        Reason.REQUEST_INVALID,
        "query",
        "give a query",
    ),
    "a search of an endpoint": (
        searching(endpoint="main.tests.plain"),
        Reason.REQUEST_INVALID,
        "endpoint",
        "name an index",
    ),
    "a search that is no JSON": (searching("{"), Reason.REQUEST_INVALID, "search", "JSON object"),
    "a search that says nothing": (
        searching(search=None),
        Reason.REQUEST_INVALID,
        "search",
        "search is empty",
    ),
    "a search with what nobody knows": (
        searching({"limit": 3}),
        Reason.REQUEST_INVALID,
        "search",
        "search: limit: ",
    ),
    "a write by one who may not": (
        writing(UPSERT, principal=""),
        Reason.PRIVILEGE_MISSING,
        "endpoint",
        "may not write to",
    ),
    "a write of nothing": (
        writing({"operation": "upsert"}),
        Reason.REQUEST_INVALID,
        "search",
        "upsert takes rows",
    ),
    "a write to an index over a table": (
        writing(UPSERT, endpoint=OVER),
        Reason.REQUEST_INVALID,
        "endpoint",
        "follows its table main.tests.table",
    ),
    "a write with a query": (
        writing(UPSERT, query="sea"),
        Reason.REQUEST_INVALID,
        "query",
        "takes no query",
    ),
    "documents beside a search": (
        searching(inputs=("a",)),
        Reason.REQUEST_INVALID,
        "inputs",
        "takes no inputs",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_index_cannot_be_asked_is_refused_with_what_to_do(name: str) -> None:
    request, reason, field, said = REFUSED[name]
    refusal = first_refusal(asked(request), VIEW, NOON)
    assert refusal is not None
    assert (refusal.reason, refusal.field) == (reason, field)
    assert said in refusal.message


@pytest.mark.parametrize(
    "request_",
    [
        searching(),
        searching({"vector": [1.0, 2.0]}, query=None),
        searching({"operation": "scan", "k": 5}, query=None),
        searching({"operation": "fetch", "keys": [{"id": 1}]}, query=None),
        searching({"mode": "hybrid", "vector": [1.0], "filters": "price < 3"}),
        searching(endpoint=OVER),
        writing(UPSERT),
        writing({"operation": "delete", "keys": [{"id": 1}]}),
    ],
)
def test_what_an_index_can_be_asked_goes_to_who_searches(request_: Any) -> None:
    [sent] = admit(asked(request_), VIEW, NOON)
    event = sent.event
    assert isinstance(event, InferenceRouted)
    assert sent.topic.name == "inference.routed.v1.search"
    assert (event.route.name, event.route.model) == ("search", request_.endpoint)
    assert event.request.search == request_.search
    assert read(event.access, Access) == Access()
    assert event.cache_key == ""


def test_no_other_request_says_what_of_an_index_may_be_seen() -> None:
    [event] = only(admit(asked(), VIEW, NOON), topics.INFERENCE_ROUTED)
    assert event.access is None


def test_a_write_counts_with_what_is_to_be_embedded_and_a_search_with_its_query() -> None:
    long, short = ({"rows": [{"id": 1, "body": "sea " * n}]} for n in (400, 4))
    grown = estimate(writing({**UPSERT, **long})) - estimate(writing({**UPSERT, **short}))
    assert grown == 396
    filtered = searching({"filters": {"body": "sea " * 400}})
    assert estimate(filtered) == estimate(searching())


def test_what_is_in_a_shape_is_named_and_not_quoted() -> None:
    with pytest.raises(FormInvalid) as invalid:
        read(json.dumps({"sort": [{"column": "a"}, {"column": MAIL, "descending": MAIL}]}), Search)
    assert str(invalid.value).startswith("sort.1.descending: ")
    assert MAIL not in str(invalid.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
rows = st.dictionaries(st.text(min_size=1).filter(lambda name: name != "vector"), values)
hits = st.builds(
    Hit,
    key=rows,
    text=st.text(),
    columns=rows,
    vector=st.none() | st.just((0.5, 1.5)),
)
documents = st.builds(Found, hits=st.lists(hits, max_size=4).map(tuple)) | st.builds(
    Write, operation=st.just("upsert"), rows=st.lists(rows, min_size=1, max_size=4).map(tuple)
)


@given(documents)
def test_the_texts_of_a_document_go_out_and_come_back(document: Found | Write) -> None:
    text = document.model_dump_json()
    assert json.loads(with_texts(text, texts_of(text))) == json.loads(text)


@given(documents, documents)
def test_texts_of_other_hits_or_rows_are_not_put_in(
    document: Found | Write, other: Found | Write
) -> None:
    text, texts = document.model_dump_json(), texts_of(other.model_dump_json())
    count, others = (
        len(each.hits) if isinstance(each, Found) else -len(each.rows) for each in (document, other)
    )
    if count == others:
        assert texts_of(with_texts(text, texts)) == texts
    else:
        with pytest.raises(ValueError, match="a search keeps"):
            with_texts(text, texts)


@given(documents)
def test_what_is_kept_of_a_document_is_all_but_its_vectors(document: Found | Write) -> None:
    kept = without_vectors(document.model_dump_json())
    assert texts_of(kept) == texts_of(document.model_dump_json())
    if isinstance(document, Found):
        assert all(each.vector is None for each in read(kept, Found).hits)


def test_a_policy_masks_queries_rows_and_filters_and_leaves_them_what_they_are() -> None:
    document = {
        "operation": "upsert",
        "rows": [
            {"id": 1, "body": f'from "{MAIL}"', "vector": [0.5, 0.25]},
            {"id": 2, "body": "b"},
        ],
    }
    guarded = guard_request(writing(document), MASKING, SEAL)
    after = read(guarded.request.search, Write)  # type: ignore[union-attr]
    assert after.rows[0]["body"] == 'from "<EMAIL_ADDRESS_1>"'
    assert (after.rows[0]["vector"], after.rows[1]) == ([0.5, 0.25], {"id": 2, "body": "b"})
    filtered = searching({"filters": {"mail": MAIL}, "k": 3}, query=f"what {MAIL} wrote")
    after_search = guard_request(filtered, MASKING, SEAL)
    assert after_search.request.query == "what <EMAIL_ADDRESS_1> wrote"  # type: ignore[union-attr]
    search = read(after_search.request.search, Search)  # type: ignore[union-attr]
    assert search == Search(k=3, filters={"mail": "<EMAIL_ADDRESS_1>"})


def test_rows_whose_keys_a_policy_masks_are_neither_written_nor_named() -> None:
    policy = {"kind": "policy", "name": "main.tests.masking"}
    masked = {**policy, "spec": MASKING[0][1].model_dump(mode="json", exclude_defaults=True)}
    tenant = {**CATALOG[4], "spec": {**CATALOG[4]["spec"], "policies": ["main.tests.masking"]}}
    index = {
        "kind": "index",
        "name": INDEX,
        "spec": {"key_columns": ["id"], "text": "body"},
        "grants": {"ann": ["MODIFY"]},
    }
    view = view_of([*CATALOG[:4], tenant, *CATALOG[5:], masked, index], LIMITS)

    def outcome(row: dict[str, Any]) -> Any:
        return of(writing({"operation": "upsert", "rows": [row]}))

    def of(request: Any) -> Any:
        outgoing = list(admit(asked(request), view, NOON))
        return only(outgoing, topics.INFERENCE_REFUSED), only(outgoing, topics.INFERENCE_ROUTED)

    [refused], _ = outcome({"id": MAIL, "body": "a"})
    assert refused.refusal.reason is Reason.POLICY_DENIED
    assert "rows[0] under 'id'" in refused.refusal.message
    assert MAIL not in refused.refusal.message
    keys = {"keys": [{"id": MAIL}]}
    for request in (
        writing({"operation": "delete", **keys}),
        searching({"operation": "fetch", **keys}, query=None),
    ):
        [refused], _ = of(request)
        assert "keys[0] under 'id'" in refused.refusal.message
    _, [passed] = outcome({"id": "a", "body": MAIL})
    assert "<EMAIL_ADDRESS_1>" in passed.request.search


def found(*hits: Hit) -> Completion:
    return Completion(
        model=INDEX,
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=1),
        found=Found(hits=hits).model_dump_json(),
    )


HIT = Hit(key={"id": 1}, text=f'{{"from": "{MAIL}"}}', columns={"mail": MAIL, "no": 7}, score=0.5)


def test_a_policy_masks_what_is_found_and_leaves_it_json() -> None:
    answer = replace(found(HIT, HIT.model_copy(update={"text": "sea", "columns": {}})))
    released = guard_completion(answer, routed(request=searching()), MASKING, SEAL)
    assert isinstance(released, Released)
    first, second = read(released.reply.found, Found).hits
    assert json.loads(first.text) == {"from": "[EMAIL_ADDRESS]"}
    assert (first.columns, first.score) == ({"mail": "[EMAIL_ADDRESS]", "no": 7}, 0.5)
    assert second.text == "sea"
    assert MAIL not in (released.kept.found or "")


def test_who_is_asked_about_an_answer_sees_what_was_found() -> None:
    answer = found(HIT)
    [texts] = answer_texts(answer)
    assert json.loads(texts)["hits"][0]["columns"] == {"mail": MAIL, "no": 7}
    changed = with_answer_texts(answer, [texts.replace(MAIL, "x")])
    assert read(changed.found, Found).hits[0].columns == {"mail": "x", "no": 7}
    request = writing(UPSERT)
    [texts] = request_texts(request)
    changed_request = with_request_texts(request, [texts.replace("salt", "sweet")])
    assert read(changed_request.search, Write).rows == ({"id": 1, "body": "sweet water"},)


def test_a_row_keeps_what_was_found_without_vectors() -> None:
    answer = found(HIT.model_copy(update={"vector": (0.5, 0.25)}))
    request = searching({"vector": [0.5, 0.25], "k": 1})
    done = completed(routed=routed(request=request), completion=answer)
    kept = row(done, cost=None, completion=answer, judgements=(), now=NOON)
    assert json.loads(kept.request) == {"model": INDEX, "query": "sea", "search": {"k": 1}}
    [hit] = json.loads(kept.response or "")["found"]["hits"]
    assert hit == {key: value for key, value in HIT.model_dump().items() if key != "vector"}
