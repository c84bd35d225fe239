"""Ranking hits anew, by an endpoint that reads query and text together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING
from uuid import uuid4

from infra.asker import Asker, NoReply, RequestRefused
from infra.settings import ClientSettings
from infra.telemetry import now
from schemas.events import InferenceRequested, Sampling, Task
from schemas.search import Found
from schemas.topics import INFERENCE_REQUESTED, REPLY
from workers.indexes.refusals import PASSING, unavailable, unfit

if TYPE_CHECKING:
    from workers.indexes.reading import Question


class Ranker:
    """Asks who ranks.

    Args:
        asker: Asks endpoints.
        client: As whom.
    """

    def __init__(self, asker: Asker, client: ClientSettings) -> None:
        self._asker = asker
        self._client = client

    async def ranked(self, found: Found, question: Question) -> Found:
        """Returns the page that is asked for of hits in their new order, with their new scores.

        Raises:
            ClientClosed: The asker was closed meanwhile.
            ProviderRefused: Nobody ranks them.
            PublishFailed: The broker did not take the request.
            RepliesLost: Replies can be heard no more.
        """
        search = question.search
        if not found.hits or search.rerank is None:
            return found
        endpoint = search.rerank.endpoint
        try:
            scores = await self._scores(endpoint, question, [hit.text for hit in found.hits])
        except NoReply:
            raise unavailable(f"{endpoint} does not rank in time: search without rerank") from None
        except RequestRefused as refused:
            reason = refused.refusal.reason
            say = unavailable if reason in PASSING else unfit
            raise say(f"{endpoint} does not rank these hits, it says {reason}") from None
        if len(scores) != len(found.hits):
            raise unfit(f"{endpoint} did not score each hit: does its model rank?")
        order = sorted(range(len(scores)), key=lambda at: -scores[at])
        hits = [
            found.hits[at].model_copy(update={"score": min(max(scores[at], 0.0), 1.0)})
            for at in order
        ]
        least = search.score_threshold
        good = [hit for hit in hits if least is None or (hit.score or 0.0) >= least]
        page = good[search.offset : search.offset + search.k]
        return found.model_copy(update={"hits": tuple(page)})

    async def _scores(
        self, endpoint: str, question: Question, texts: Sequence[str]
    ) -> Sequence[float]:
        request = InferenceRequested(
            request_id=str(uuid4()),
            tenant=self._client.tenant,
            principal=self._client.principal,
            endpoint=endpoint,
            task=Task.RERANK,
            messages=(),
            query=question.query,
            inputs=tuple(texts),
            sampling=Sampling(),
            reply_to=REPLY.member(self._client.tenant).name,
            requested_at=now(),
            deadline=question.deadline,
            tags={"index": question.place.index},
        )
        replies = self._asker.replies(
            INFERENCE_REQUESTED, request, request.request_id, request.deadline
        )
        async with aclosing(replies):
            async for replied in replies:
                if replied.completion is not None:
                    return replied.completion.scores
        return ()
