"""The demo's agent: it answers a customer from articles that it searches and orders in a table.

Knows the orders, what the customer asks, and what must come of it: an answer that rests on a search
and on a statement in SQL. How good it is, is the model's affair; it is asked to draw no lots.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import timedelta
from typing import LiteralString
from uuid import uuid4

import psycopg
import typer

from infra.asker import NoReply, RequestRefused
from infra.bootstrap import ROOT
from infra.knowledge import INDEX, UNASKED, Types, asking, owner_session, typed
from infra.stack.local import LocalStack, StackFailed
from infra.stack.settings import StackSettings
from infra.telemetry import now
from schemas.events import InferenceRequested, Message, Role, Sampling, Task
from schemas.topics import REPLY

AGENT = "main.default.support"
DOCUMENTS = ROOT / "catalog" / "support.yaml"
QUESTION = "What did I buy with order 1002, and what is it for?"

ORDERS = (
    (1001, "Ada", "a bread knife", "delivered", "2026-01-12"),
    (1002, "Ben", "a box of rosin", "sent", "2026-01-19"),
    (1003, "Chloe", "a chess clock", "packed", "2026-01-20"),
)
MAKE: LiteralString = """
CREATE TABLE IF NOT EXISTS public.orders (
    id int PRIMARY KEY, customer text NOT NULL, article text NOT NULL, state text NOT NULL,
    day date NOT NULL
)
"""
PUT: LiteralString = """
INSERT INTO public.orders VALUES (%s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE
SET customer = excluded.customer, article = excluded.article, state = excluded.state,
    day = excluded.day
"""
DEADLINE = timedelta(minutes=5)
MOST_TOKENS = 80


def show(stack: LocalStack, types: Types) -> None:
    """Makes the orders and the agent, asks it, and shows what it did.

    Raises:
        StackFailed: A command failed, or there was no answer.
    """
    typer.secho(f"\nan agent that searches {INDEX} and looks up orders: {AGENT}", bold=True)
    _make_orders(stack.settings)
    typed(types, "apply", ["--yes", "--file", str(DOCUMENTS)])
    typer.secho(f"\nquestion to {AGENT}: {QUESTION}", bold=True)
    try:
        run = asyncio.run(_asked(stack))
    except (*UNASKED, NoReply, RequestRefused) as problem:
        raise StackFailed(f"the agent did not answer: {problem}") from None
    typed(types, "runs", ["follow", run])
    typed(types, "runs", ["show", run])


def _make_orders(settings: StackSettings) -> None:
    try:
        with closing(owner_session(settings)) as session, session.transaction():
            session.execute(MAKE)
            session.cursor().executemany(PUT, ORDERS)
    except psycopg.Error as problem:
        kind = type(problem).__name__
        raise StackFailed(f"the orders could not be made: {kind}") from None


async def _asked(stack: LocalStack) -> str:
    """Asks the agent; returns the id of its run, which is over."""
    async with asking(stack) as (asker, client):
        instant = now()
        request = InferenceRequested(
            request_id=str(uuid4()),
            tenant=client.tenant,
            principal=client.principal,
            endpoint=AGENT,
            messages=(Message(role=Role.USER, content=QUESTION),),
            sampling=Sampling(temperature=0, max_tokens=MOST_TOKENS),
            # What a run tells can be followed.
            stream=True,
            reply_to=REPLY.member(client.tenant).name,
            requested_at=instant,
            deadline=instant + DEADLINE,
            task=Task.AGENT,
        )
        await asker.completion(request)
    return request.request_id
