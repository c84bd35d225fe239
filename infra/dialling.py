"""HTTP to one address and nowhere else.

No proxy, no redirect, no cookie, nothing of the environment; addresses are judged as they are
dialled (``addresses.py``). Each client has a pool of its own, so one that hangs holds up no other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext

import httpcore2
import httpx2

from infra.addresses import Guard
from schemas.kinds import ConnectionSpec

MOST_CONNECTIONS = 1_000
# Kept open while idle, and for how long.
IDLE_CONNECTIONS, IDLE_S = 100, 30.0
CONNECT_S = 10.0
# Of one body, as it travels: far more than the longest answer with all its log probabilities.
MOST_BYTES = 256 * 1024 * 1024
# Longest silence of a socket; shorter bounds are the route's (``first_token``, ``idle``).
SILENCE_S = 600.0


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """Carries requests over connections that were judged as they were dialled.

    Args:
        private: Whether addresses of this machine and of private networks may be dialled.
        most_bytes: Of one body; ``MOST_BYTES`` if left out.
    """

    def __init__(self, *, private: bool, most_bytes: int | None = None) -> None:
        self._most_bytes = most_bytes or MOST_BYTES
        # Not the parent's: it has no place for the network.
        unreachable = (httpcore2.ConnectError, httpcore2.ConnectTimeout)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted(),
            max_connections=MOST_CONNECTIONS,
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_S,
            network_backend=_Backend(httpcore2.AnyIOBackend(), unreachable, private=private),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Returns the answer to a request; its body is not read yet."""
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = Bounded(response.stream, self._most_bytes)
        return response


class BodyTooLarge(httpx2.ReadError):
    """A body passes its bound."""


class Bounded(httpx2.AsyncByteStream):
    """A body that breaks off where it passes a bound, so that one without end fills no memory."""

    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._left = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._left -= len(piece)
            if self._left < 0:
                raise BodyTooLarge("the body is larger than any answer")
            yield piece

    async def aclose(self) -> None:
        """Closes the body."""
        await self._stream.aclose()


class _Backend(Guard[httpcore2.AsyncNetworkStream], httpcore2.AsyncNetworkBackend):
    """The guard under the name that the pool expects."""


def open_client(
    connection: ConnectionSpec, *, silence_s: float = SILENCE_S, most_bytes: int | None = None
) -> httpx2.AsyncClient:
    """Returns a client for one connection; nothing is sent yet.

    Args:
        connection: Where to.
        silence_s: Longest wait for the next byte.
        most_bytes: Of one body; ``MOST_BYTES`` if left out.

    Raises:
        ValueError: The address is none of HTTP, or would carry a key where others can read it.
    """
    _require_safe(connection)
    return httpx2.AsyncClient(
        base_url=connection.url,
        # A stream that is unpacked comes in lumps; one that is packed all the same is unpacked.
        headers={"Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        timeout=httpx2.Timeout(silence_s, connect=CONNECT_S),
        transport=GuardedTransport(private=connection.private, most_bytes=most_bytes),
        follow_redirects=False,
        trust_env=False,
    )


@cache
def trusted() -> SSLContext:
    """Returns the certificates of this machine; loading them takes long enough to do it once."""
    return httpx2.create_ssl_context(trust_env=False)


def _require_safe(connection: ConnectionSpec) -> None:
    try:
        url = httpx2.URL(connection.url)
    except httpx2.InvalidURL:
        raise ValueError("url: this is no address") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("url: an address of http or https belongs here")
    if url.scheme == "http" and connection.secret is not None and not connection.private:
        raise ValueError("url: a key goes over https, or to a private address")
