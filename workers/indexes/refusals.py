"""What an index cannot answer, and how embedding and storing fail, in words for the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infra.asker import ClientClosed, NoReply, RepliesLost, RequestRefused
from infra.bus import PublishFailed
from infra.conditions import FilterInvalid
from infra.embedding import TextsRefused, VectorsUnfit
from infra.vectors import (
    DimensionsWrong,
    PlaceUnknown,
    SearchInvalid,
    VectorsRefused,
    VectorsUnreachable,
)
from schemas.events import Reason, Refusal
from workers.providers import ProviderBroken, ProviderRefused

# Refusals of whoever embeds that pass by themselves.
PASSING = frozenset(
    {
        Reason.BUDGET_EXCEEDED,
        Reason.CANCELLED,
        Reason.DEADLINE_EXPIRED,
        Reason.LIMIT_EXCEEDED,
        Reason.PROVIDER_FAILED,
        Reason.PROVIDER_TIMEOUT,
        Reason.PROVIDER_UNAVAILABLE,
        Reason.RATE_LIMITED,
    }
)


def invalid(message: str, field: str = "search") -> ProviderRefused:
    """Returns that a request must be put differently."""
    return refused(Reason.REQUEST_INVALID, message, field)


def unfit(message: str) -> ProviderRefused:
    """Returns that an index cannot be asked as the catalog defines it."""
    return refused(Reason.ROUTE_UNFIT, message, "endpoint")


def unavailable(message: str) -> ProviderRefused:
    """Returns that an index cannot be asked now."""
    return refused(Reason.PROVIDER_UNAVAILABLE, message)


def refused(reason: Reason, message: str, field: str | None = None) -> ProviderRefused:
    """Returns a refusal to be raised."""
    return ProviderRefused(Refusal(reason=reason, message=message, field=field))


@contextmanager
def told(index: str) -> Iterator[None]:
    """Turns what the store and whoever embeds fail with into what the caller is told.

    Raises:
        ProviderBroken: Replies can be heard no more.
        ProviderRefused: In place of all else.
    """
    try:
        yield
    except (ClientClosed, RepliesLost) as lost:
        raise ProviderBroken(str(lost)) from lost
    except tuple(TELLING) as problem:
        say = next(say for kind, say in TELLING.items() if isinstance(problem, kind))
        raise say(index, problem) from None


def _refused_by(index: str, problem: RequestRefused) -> ProviderRefused:
    reason, message = problem.refusal.reason, problem.refusal.message
    if reason in PASSING:
        return unavailable(f"the embedding endpoint of {index} says {reason}: try again later")
    return unfit(
        f"the embedding endpoint of {index} says {reason}, so its owner must see to it: {message}"
    )


def _query_refused(index: str, problem: TextsRefused) -> ProviderRefused:
    refusal = next(iter(problem.refusals.values()))
    return refused(refusal.reason, f"the query cannot be embedded: {refusal.message}", "query")


# Each is called with its own kind only.
TELLING: dict[type[Exception], Callable[[str, object], ProviderRefused]] = {
    DimensionsWrong: lambda index, problem: invalid(f"{index}: {problem}"),
    FilterInvalid: lambda index, problem: invalid(f"search.filters: {problem}"),
    NoReply: lambda index, problem: unavailable(
        f"the embedding endpoint of {index} does not answer: try again later"
    ),
    PlaceUnknown: lambda index, problem: unavailable(
        f"{index} is not in the vector store yet: try again later"
    ),
    PublishFailed: lambda index, problem: unavailable(
        f"nobody can be asked to embed for {index} now: try again later"
    ),
    RequestRefused: _refused_by,  # type: ignore[dict-item]
    SearchInvalid: lambda index, problem: invalid(f"search: {problem}"),
    TextsRefused: _query_refused,  # type: ignore[dict-item]
    VectorsRefused: lambda index, problem: refused(Reason.PROVIDER_FAILED, f"{index}: {problem}"),
    VectorsUnfit: lambda index, problem: unfit(str(problem)),
    VectorsUnreachable: lambda index, problem: unavailable(
        "the vector store does not answer: try again later"
    ),
}
