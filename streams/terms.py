"""What may be said of a request, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from schemas.events import Sampling, Tool
from schemas.search import Rerank, Sort


class Terms(TypedDict, total=False):
    """What may be said of any request.

    Attributes:
        tags: Your own labels, for cost, limits and search; ``session`` names the conversation.
        timeout: Seconds until the request's deadline; 60 when left out.
    """

    tags: Mapping[str, str]
    timeout: float


class RunTerms(Terms, total=False):
    """What may be said of a run, besides the agent and what is said to it.

    Attributes:
        previous: Id of an earlier run of one's own, whose conversation is gone on with.
        previous_turns: After how many of its turns; all of them when left out.
        sampling: How tokens are drawn in each turn of its model, save for summaries.
    """

    previous: str | None
    previous_turns: int | None
    sampling: Sampling


class Options(Terms, total=False):
    """What may be said of a request for an answer, besides the endpoint and the conversation.

    Attributes:
        sampling: How tokens are drawn.
        json_schema: JSON Schema text that the answer must satisfy.
        tools: Functions that the model may ask for.
        tool_choice: auto, none, required, or a tool's name.
    """

    sampling: Sampling
    json_schema: str | None
    tools: Sequence[Tool]
    tool_choice: str


class SearchOptions(Terms, total=False):
    """What may be said of a search besides the index and the query; see ``schemas.search.Search``.

    Attributes:
        mode: By meaning (``vector``, when left out), by words (``full_text``), or ``hybrid``.
        k: How many hits; 10 when left out.
        offset: Hits passed over first.
        alpha: Weight of meaning against words in ``hybrid``.
        filters: What hits must satisfy: a dictionary, or a condition like SQL's.
        score_threshold: Least score of a hit.
        sort: Order of the hits, where it is not by score.
        facets: Columns whose values are counted.
        columns: What is returned of each hit; all that may be seen when left out.
        vectors: Whether vectors are returned.
        rerank: Who ranks the hits anew.
        vector: Searched for instead of the query's own.
    """

    mode: Literal["full_text", "hybrid", "vector"]
    k: int
    offset: int
    alpha: float
    filters: dict[str, Any] | str | None
    score_threshold: float | None
    sort: Sequence[Sort]
    facets: Sequence[str]
    columns: Sequence[str] | None
    vectors: bool
    rerank: Rerank | None
    vector: Sequence[float] | None


class ScanOptions(Terms, total=False):
    """What may be said of a scan, or of rows that are fetched.

    Attributes:
        filters: What rows must satisfy: a dictionary, or a condition like SQL's.
        columns: What is returned of each row; all that may be seen when left out.
        vectors: Whether vectors are returned.
    """

    filters: dict[str, Any] | str | None
    columns: Sequence[str] | None
    vectors: bool
