"""What dialects share that call a provider: how calls fail, and what they may carry.

Knows HTTP's statuses and errors, and the words that providers have for parameters; knows no
provider's form.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping
from json import JSONDecodeError

import httpx2

from infra.addresses import AddressForbidden, forbidden
from infra.dialling import SILENCE_S, open_client
from schemas.events import InferenceRequested, Reason, Refusal
from schemas.kinds import ConnectionSpec
from schemas.openai import FormInvalid, mapping
from workers.providers import ProviderRefused
from workers.providers.answer import failed, stream_cut, whole
from workers.providers.chat import Complaint, refusal
from workers.providers.http import address_forbidden, count_skipped, retry_after_ms

# How a body that is not in the provider's form shows itself.
MALFORMED = (FormInvalid, JSONDecodeError, RecursionError, UnicodeDecodeError)
# How a call that reached nobody, or broke off, shows itself.
BROKEN = (AddressForbidden, httpx2.HTTPError, httpx2.StreamError)
# What every call carries; whatever else a library or the environment adds is not sent.
HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
    }
)
COMPLAINT_BYTES = 64 * 1024
CONTEXT = re.compile(
    r"(prompt|input) is too long|too many (input )?tokens|context (window|limit|length)"
    r"|token count.*exceeds|exceed.*(maximum|max) number of tokens",
    re.I,
)
# What providers call parameters, without case and underscores, under OpenAI's names.
PARAMETERS: dict[str, str] = {
    "frequencypenalty": "frequency_penalty",
    "functiondeclarations": "tools",
    "inputschema": "tools",
    "jsonschema": "response_format",
    "maxoutputtokens": "max_tokens",
    "maxtokens": "max_tokens",
    "outputconfig": "response_format",
    "presencepenalty": "presence_penalty",
    "responseformat": "response_format",
    "responsejsonschema": "response_format",
    "responselogprobs": "logprobs",
    "responsemimetype": "response_format",
    "responseschema": "response_format",
    "stopsequences": "stop",
    "temperature": "temperature",
    "toolchoice": "tool_choice",
    "toolconfig": "tool_choice",
    "topk": "top_k",
    "topp": "top_p",
}


class Complained(Exception):
    """A provider answers with a complaint.

    Attributes:
        status: HTTP status, or the one that the complaint in a stream would have had.
        message: The provider's words; they may quote the prompt.
        headers: Those of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        # Not the message: whoever prints the error must not print that.
        super().__init__(f"the provider complains with status {status}")
        self.status = status
        self.message = message
        self.headers = headers


def plain_client(
    connection: ConnectionSpec, *headers: str, silence_s: float = SILENCE_S
) -> httpx2.AsyncClient:
    """Returns a client that sends only the headers that every call needs, and those named.

    Args:
        connection: Where to.
        headers: Names in lower case.
        silence_s: Longest wait for the next byte.
    """
    client = open_client(connection, silence_s=silence_s)
    kept = HEADERS.union(headers)

    async def keep(request: httpx2.Request) -> None:
        # Libraries bring timeouts of their own, or none at all.
        request.extensions["timeout"] = client.timeout.as_dict()
        for name in set(request.headers) - kept:
            del request.headers[name]

    client.event_hooks = {"request": [keep]}
    return client


def headed(secret: str) -> str:
    """Returns a secret that a header can carry.

    Raises:
        ProviderRefused: It has characters that none can.
    """
    if not (secret.isascii() and secret.isprintable()):
        raise ProviderRefused(failed("the provider's key has characters that no header carries"))
    return secret


async def read_complaint(response: httpx2.Response) -> Mapping[str, object]:
    """Returns the JSON object that a complaint is; an empty one where it is none, or too long."""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > COMPLAINT_BYTES:
            return {}
    try:
        return mapping(json.loads(body), "complaint")
    except MALFORMED:
        return {}


async def events_of(response: httpx2.Response) -> AsyncGenerator[object, None]:
    """Yields what the server-sent events of a response carry; what is no JSON says nothing."""
    skipped = 0
    async for event in httpx2.EventSource(response):
        if is_json(event.data):
            yield event.json()
        else:
            skipped += bool(event.data)
    count_skipped(skipped)


def is_json(data: str) -> bool:
    """Returns whether a text is JSON."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def broken(error: Exception, *, begun: bool) -> Refusal:
    """Returns what the caller is told about a call that failed below the provider's own words.

    Args:
        error: One of ``BROKEN`` or ``MALFORMED``.
        begun: Whether the provider had begun to answer.
    """
    match error:
        case _ if forbidden(error):
            return address_forbidden()
        case httpx2.TimeoutException():
            return late()
        case httpx2.DecodingError() | httpx2.SSEError():
            return failed("the provider's answer is no stream that can be read")
        case httpx2.HTTPError() | httpx2.StreamError() if begun:
            return stream_cut()
        case httpx2.HTTPError() | httpx2.StreamError():
            return out_of_reach()
    return failed("the provider's answer is not in its form")


def late() -> Refusal:
    """Returns the refusal for a provider that was silent for too long."""
    return Refusal(reason=Reason.PROVIDER_TIMEOUT, message="the provider did not answer in time")


def out_of_reach() -> Refusal:
    """Returns the refusal for a provider that no call reaches."""
    return Refusal(reason=Reason.PROVIDER_UNAVAILABLE, message="the provider cannot be reached")


def complained(
    request: InferenceRequested,
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> Refusal:
    """Returns what the caller is told about a provider's complaint, without what it quotes.

    Args:
        request: The request.
        status: HTTP status, or the one that the complaint in a stream would have had.
        message: The provider's words.
        headers: Those of the answer.
    """
    complaint = Complaint(
        status=status,
        message=whole(message),
        param=_parameter(message),
        code="context_length_exceeded" if CONTEXT.search(message) else "",
    )
    return refusal(complaint, request, retry_after_ms(headers or {}))


def _parameter(message: str) -> str:
    words = re.findall(r"[A-Za-z_]+", message)
    found = (PARAMETERS.get(word.replace("_", "").lower()) for word in words)
    return next((name for name in found if name), "")
