"""Routed requests, as the gateway would send them to a pool of workers."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import uuid4

from infra.telemetry import now
from schemas.events import InferenceRequested, InferenceRouted, Message, Role, Route, Sampling


def routed(
    script: object = None,
    *,
    request_id: str | None = None,
    tenant: str = "acme",
    stream: bool = False,
    parts_to: str | None = None,
    attempt: int = 0,
    deadline_s: float = 300.0,
) -> InferenceRouted:
    """Returns a routed request.

    Args:
        script: What its last message says, as JSON: see ``tests/scripted.py``.
        request_id: A fresh one when left out.
        tenant: Who asks.
        stream: Whether parts are wanted.
        parts_to: Where the worker sends them; None for the gateway.
        attempt: How often the request has been routed before.
        deadline_s: Seconds from now; negative for a deadline that has passed.
    """
    instant = now()
    return InferenceRouted(
        request=InferenceRequested(
            request_id=request_id or str(uuid4()),
            tenant=tenant,
            endpoint="main.tests.scripted",
            messages=(Message(role=Role.USER, content=json.dumps(script or {})),),
            sampling=Sampling(),
            stream=stream,
            reply_to="reply.v1.acme",
            requested_at=instant,
            deadline=instant + timedelta(seconds=deadline_s),
        ),
        route=Route(name="local", pool="scripted", model="scripted"),
        attempt=attempt,
        parts_to=parts_to,
        routed_at=instant,
    )
