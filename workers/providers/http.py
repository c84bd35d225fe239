"""What dialects share that speak HTTP (``infra/dialling.py``): what is told beside an answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import structlog
from prometheus_client import Counter

from schemas.events import Reason, Refusal

log = structlog.get_logger()

SKIPPED = Counter("tessera_stream_lines_skipped", "Lines of providers that could not be read")


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Returns the wait that an answer asks for; None where it asks for none.

    It is in ``Retry-After`` (RFC 9110), as seconds or a date, or in OpenAI's ``retry-after-ms``.
    """
    exact = headers.get("retry-after-ms", "").strip()
    if exact.isdecimal():
        return int(exact)
    said = headers.get("retry-after", "").strip()
    if said.isdecimal():
        return int(said) * 1000
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    wait = until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)
    return max(0, int(wait.total_seconds() * 1000))


def count_skipped(lines: int) -> None:
    """Tells the operators of lines of a stream that could not be read, and were left out."""
    if lines:
        SKIPPED.inc(lines)
        log.warning("stream lines skipped", lines=lines)


def address_forbidden() -> Refusal:
    """Returns the refusal for a connection whose address may not be dialled."""
    return Refusal(
        reason=Reason.PROVIDER_FAILED,
        message="the connection leads to an address that may not be called from here",
    )
