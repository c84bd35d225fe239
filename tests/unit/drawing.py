"""Catalogs, requests and answers as hypothesis draws them, for the laws of the gateway."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from infra.catalog import CatalogView, Limits
from infra.signing import Signer, claimed, generate
from schemas import topics
from schemas.events import (
    Completion,
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    Message,
    Refusal,
    Role,
    Route,
    Sampling,
    Task,
)
from streams.gateway.asked import Asked
from tests.seed import view_of
from tests.unit.asking import asked
from tests.unit.events import EPOCH, TEXT, events

NAMES = st.sampled_from(["alpha", "beta", "gamma"])
# What is no endpoint of routes: an agent, a function, an index, by what they are asked for.
OTHERS = {"agent": Task.AGENT, "function": Task.TOOL, "index": Task.SEARCH}
ENDPOINTS = (NAMES | st.sampled_from(sorted(OTHERS))).map(lambda name: f"main.tests.{name}")
PLAIN = NAMES.map(lambda name: f"main.tests.{name}")
OBJECTS: list[dict[str, Any]] = [
    {"kind": "agent", "name": "main.tests.agent", "spec": {"endpoint": "main.tests.alpha"}},
    {
        "kind": "function",
        "name": "main.tests.function",
        "versions": [{"spec": {"language": "python", "source": "pass"}}] * 2,
        "aliases": {"first": 1},
    },
    {"kind": "index", "name": "main.tests.index", "spec": {"text": "body"}},
]
ADDRESSES = NAMES.map(lambda name: topics.REPLY.member(name).name)
OFTEN = st.integers(0, 3).map(bool)
VERSIONS = st.none() | st.sampled_from(["1", "2", "3", "first", "other"])
# Around the deadlines that requests are given below.
LATER = EPOCH + timedelta(days=20_000)
MOMENTS = st.integers(0, 2000).map(lambda ms: LATER + timedelta(milliseconds=ms))

SIGNERS = {name: Signer(generate()) for name in ("alpha", "beta", "gamma")}


def routes() -> st.SearchStrategy[Route]:
    return st.builds(Route, name=NAMES, pool=NAMES, model=NAMES)


@st.composite
def views(draw: st.DrawFn) -> CatalogView:
    """Catalogs of a few endpoints and tenants; more often than not, they know who asks."""
    endpoints = draw(_most(PLAIN, st.lists(routes(), min_size=1, max_size=3)))
    tenants = draw(_most(NAMES, st.lists(NAMES, min_size=1, max_size=2)))
    documents: list[dict[str, Any]] = [
        {"kind": "catalog", "name": "main", "grants": {"everyone": ["USE"]}},
        {
            "kind": "schema",
            "name": "main.tests",
            "grants": {"everyone": ["EXECUTE", "QUERY", "USE"]},
        },
        *(OBJECTS if draw(OFTEN) else ()),
    ]
    if draw(st.booleans()):
        documents.append({"kind": "root", "name": "*", "grants": {draw(NAMES): ["MANAGE"]}})
    for name, each in endpoints.items():
        spec = {"routes": list(map(_said, each)), "output_policy": draw(st.booleans())}
        documents.append({"kind": "endpoint", "name": name, "spec": spec})
    for name, replies in tenants.items():
        spec = {"replies": replies, "accept_unsigned": draw(st.booleans())}
        key = base64.b64encode(SIGNERS[name].public_key).decode()
        keys = [{"public_key": key, "not_before": EPOCH}] if draw(OFTEN) else []
        documents.append({"kind": "tenant", "name": name, "spec": spec, "keys": keys})
    most = 1000 if draw(OFTEN) else draw(st.integers(1, 1000))
    return view_of(documents, Limits(max_request_bytes=most, max_deadline_ms=1500))


def _most(
    names: st.SearchStrategy[str], values: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(names, values, min_size=2) | st.dictionaries(names, values)


def _said(route: Route) -> dict[str, str]:
    return {"name": route.name, "pool": route.pool, "model": route.model}


@st.composite
def requests(draw: st.DrawFn) -> InferenceRequested:
    """Any request that the schema allows, or one that has a chance to be admitted."""
    request = draw(events(InferenceRequested))
    if draw(OFTEN):
        request = replace(
            request,
            messages=(Message(role=Role.USER, content=draw(TEXT)),),
            sampling=Sampling(),
            json_schema=None,
            tools=(),
            tool_choice="auto",
        )
        request = _of_its_kind(request, draw(ENDPOINTS), draw(VERSIONS))
        return replace(
            request,
            tenant=draw(NAMES),
            principal=draw(st.just("") | NAMES),
            reply_to=draw(ADDRESSES),
            deadline=draw(MOMENTS),
            tags={},
        )
    return replace(
        request,
        tenant=draw(NAMES | TEXT),
        endpoint=draw(ENDPOINTS | TEXT),
        reply_to=draw(ADDRESSES | TEXT),
        deadline=draw(MOMENTS),
    )


def _of_its_kind(
    request: InferenceRequested, endpoint: str, version: str | None
) -> InferenceRequested:
    """Returns a request that asks for what the endpoint is there for."""
    task = OTHERS.get(endpoint.rpartition(".")[2], Task.CHAT)
    called, searched = task is Task.TOOL, task is Task.SEARCH
    return replace(
        request,
        endpoint=endpoint,
        task=task,
        messages=() if called or searched else request.messages,
        inputs=('{"a": 1}',) if called else (),
        query="sea" if searched else None,
        search="{}" if searched else None,
        version=version if called else None,
    )


@st.composite
def asks(draw: st.DrawFn) -> Asked:
    """Requests as they come: unsigned, signed by somebody, or signed as another record."""
    request = draw(requests())
    signed = None
    if draw(OFTEN):
        own = request.tenant in SIGNERS and draw(st.booleans())
        signer = SIGNERS[request.tenant if own else draw(NAMES)]
        key = (request.tenant if draw(OFTEN) else draw(TEXT)).encode()
        topic = topics.INFERENCE_REQUESTED.name
        signed = claimed(signer.headers(topic, key, request.deadline, b"value"), b"value")
        names = st.just("") | st.just(request.tenant) | NAMES
        request = replace(request, principal=draw(names))
    replayed = signed is not None and not draw(OFTEN)
    return asked(request, signed=signed, replayed=replayed)


@st.composite
def askings_for_others(draw: st.DrawFn) -> tuple[Asked, CatalogView, str]:
    """Requests in anybody's name by anybody, in catalogs where one may ask for others: that one."""
    may = draw(NAMES)
    tenants = [
        {
            "kind": "tenant",
            "name": name,
            "keys": [
                {
                    "public_key": base64.b64encode(signer.public_key).decode(),
                    "not_before": EPOCH,
                }
            ],
        }
        for name, signer in SIGNERS.items()
    ]
    view = view_of(
        [
            {"kind": "catalog", "name": "main", "grants": {"everyone": ["USE"]}},
            {"kind": "schema", "name": "main.tests", "grants": {"everyone": ["EXECUTE", "USE"]}},
            {"kind": "root", "name": "*", "grants": {may: ["MANAGE"]}},
            *OBJECTS,
            *tenants,
        ],
        Limits(max_request_bytes=1000, max_deadline_ms=1500),
    )
    request = InferenceRequested(
        request_id="request",
        tenant=draw(NAMES),
        principal=draw(NAMES),
        endpoint="",
        messages=(Message(role=Role.USER, content="hello"),),
        sampling=Sampling(),
        reply_to=draw(ADDRESSES),
        requested_at=LATER,
        deadline=LATER + timedelta(seconds=1),
    )
    endpoint = draw(st.sampled_from(["main.tests.agent", "main.tests.function"]))
    request = _of_its_kind(request, endpoint, None)
    signer = SIGNERS[draw(NAMES)]
    topic, key = topics.INFERENCE_REQUESTED.name, request.tenant.encode()
    signed = claimed(signer.headers(topic, key, request.deadline, b"value"), b"value")
    return asked(request, signed=signed), view, may


@st.composite
def completions(draw: st.DrawFn) -> InferenceCompleted:
    """Ends of routed requests, with a completion or a refusal; one of them, as promised."""
    routed = replace(
        draw(events(InferenceRouted)),
        request=draw(requests()),
        route=draw(routes()),
        fallbacks=tuple(draw(st.lists(routes(), max_size=3))),
        mirrored=False,
        sealed=None,
    )
    answer = draw(events(Completion) | events(Refusal))
    return replace(
        draw(events(InferenceCompleted)),
        routed=routed,
        completion=answer if isinstance(answer, Completion) else None,
        refusal=answer if isinstance(answer, Refusal) else None,
    )
