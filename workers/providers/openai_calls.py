"""Calls in OpenAI's manner over one connection, on the openai library.

Knows how a call is made and in how many ways it fails; knows nothing of what is said in it. One
attempt a call, no key but the one given for it, and nothing of the environment.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Protocol

from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AsyncStream,
    Omit,
)

from infra.addresses import AddressForbidden
from infra.dialling import SILENCE_S, open_client
from schemas.events import Completion, Delta, InferenceRequested, Refusal
from schemas.kinds import ConnectionSpec
from workers.providers import ProviderRefused
from workers.providers.answer import failed, stream_cut
from workers.providers.calls import MALFORMED, headed, is_json, late, out_of_reach
from workers.providers.chat import Complaint, refusal
from workers.providers.checks import require_kept
from workers.providers.http import address_forbidden, count_skipped, retry_after_ms

END = "[DONE]"


class Events(AsyncStream[object]):
    """A stream of which lines that are no JSON are skipped; they say nothing, the others do.

    Attributes:
        skipped: Lines so far.
    """

    skipped = 0

    async def _iter_events(self) -> AsyncIterator[Any]:
        async for event in super()._iter_events():
            if event.data.startswith(END) or is_json(event.data):
                yield event
            elif event.data:
                self.skipped += 1


def bearer(secret: str) -> dict[str, str]:
    """Returns the header that carries a key as OpenAI wants it."""
    return {"Authorization": f"Bearer {secret}"}


class Taker(Protocol):
    """An answer that grows by what a stream carries."""

    begun: bool

    def take(self, event: object, /) -> Delta | None:
        """Adds one event and returns what it brings, or None where that is nothing."""

    def completion(self) -> Completion:
        """Returns the whole completion."""


class Calls:
    """Calls to one connection; up to 1,000 are under way at once.

    Args:
        connection: Where to.
        proof: Returns the headers that carry a secret.
        query: What every call says behind its path.
        silence_s: Longest wait for the next byte.
    """

    def __init__(
        self,
        connection: ConnectionSpec,
        *,
        proof: Callable[[str], dict[str, str]] = bearer,
        query: Mapping[str, object] | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._proof = proof
        self._client = AsyncOpenAI(
            api_key="",
            admin_api_key="",
            base_url=connection.url,
            default_query=query,
            max_retries=0,
            timeout=silence_s,
            http_client=open_client(connection, silence_s=silence_s),
            _enforce_credentials=False,
        )

    async def stream(
        self, path: str, body: Mapping[str, object], secret: str | None
    ) -> AsyncGenerator[object, None]:
        """Yields what the events of a stream carry, until it ends."""
        stream = await self._client.post(
            path,
            cast_to=object,
            body=body,
            options={"headers": self._headers(secret)},
            stream=True,
            stream_cls=Events,
        )
        async with stream:
            async for event in stream:
                yield event
            count_skipped(stream.skipped)

    async def post(self, path: str, body: Mapping[str, object], secret: str | None) -> object:
        """Returns what a call answers with."""
        return await self._client.post(
            path, cast_to=object, body=body, options={"headers": self._headers(secret)}
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    def _headers(self, secret: str | None) -> dict[str, str | Omit]:
        return {
            # The library would take these three from the environment.
            "Authorization": Omit(),
            "OpenAI-Organization": Omit(),
            "OpenAI-Project": Omit(),
            **(self._proof(headed(secret)) if secret else {}),
        }


@contextmanager
def refusing(request: InferenceRequested, begun: Callable[[], bool]) -> Iterator[None]:
    """Turns whatever goes wrong with a call into a refusal.

    The provider's own words may quote the prompt, so they do not ride along.

    Args:
        request: What the call is for.
        begun: Whether the provider has said anything yet.

    Raises:
        ProviderRefused: The call went wrong.
    """
    try:
        yield
    except (AddressForbidden, APIError, *MALFORMED) as error:
        raise ProviderRefused(_refusal(error, request, begun=begun())) from None


async def answered(
    events: AsyncGenerator[object, None], answer: Taker, request: InferenceRequested
) -> AsyncGenerator[Delta | Completion, None]:
    """Yields what a stream brings an answer, and the Completion once it has ended well.

    Raises:
        ProviderRefused: The call went wrong, or the answer does not keep to the request's schemas.
    """
    with refusing(request, lambda: answer.begun):
        async with aclosing(events):
            async for event in events:
                if delta := answer.take(event):
                    yield delta
    if not answer.begun:
        raise ProviderRefused(failed("the provider answered with an empty body"))
    completion = answer.completion()
    require_kept(completion, request)
    yield completion


def _refusal(error: Exception, request: InferenceRequested, *, begun: bool) -> Refusal:
    match error:
        case AddressForbidden():
            found = address_forbidden()
        case APITimeoutError():
            found = late()
        case APIConnectionError() if begun:
            found = stream_cut()
        case APIConnectionError():
            found = out_of_reach()
        case APIStatusError():
            complaint = _complaint(error, error.status_code)
            found = refusal(complaint, request, retry_after_ms(error.response.headers))
        case APIError() if str(error.code).isdecimal():
            found = refusal(_complaint(error, int(str(error.code))), request)
        case APIError():
            found = failed("the provider reported an error in the middle of its answer")
        case _:
            found = failed("the provider's answer is not in the form that it is asked for")
    return found


def _complaint(error: APIError, status: int) -> Complaint:
    body = error.body if isinstance(error.body, Mapping) else {}
    return Complaint(
        status=status,
        message=str(body.get("message") or ""),
        param=str(error.param or ""),
        code=str(error.code or ""),
    )
