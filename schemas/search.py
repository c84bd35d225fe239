"""How an index is asked and written to, and what it answers: the JSON inside requests and replies.

``InferenceRequested.search`` holds a ``Search`` (task SEARCH) or a ``Write`` (task WRITE), and
``Completion.found`` a ``Found`` or a ``Written``. ``InferenceRouted.access`` holds an ``Access``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from schemas.openai import FormInvalid, parsed
from schemas.shapes import FullName, Shape, Text

MOST_HITS = 10_000  # that paging reaches; beyond it, scan
MOST_ROWS = 1_000  # in one request

# Of a key that nobody knows, in an error.
MOST_QUOTED = 64

S = TypeVar("S", bound=Shape)

# Of key columns, or of columns that are kept.
Values = dict[str, Any]


class Sort(Shape):
    """A column that hits are put in order by, instead of by score."""

    column: Text
    descending: bool = False


class Rerank(Shape):
    """Hits are ranked anew by an endpoint that reads query and text together.

    Attributes:
        endpoint: Who ranks them; its task is rerank.
        top: How many of the first hits it reads.
    """

    endpoint: FullName
    top: Annotated[int, Field(ge=1, le=200)] = 50


class Search(Shape):
    """How an index is asked.

    Attributes:
        operation: ``search`` by the request's query; ``scan`` all rows in the order of their keys;
            ``fetch`` rows by their keys.
        mode: By meaning (``vector``), by words (``full_text``, BM25), or both (``hybrid``).
        k: How many hits; with ``scan``, how many rows a page.
        offset: Hits passed over first; with ``k`` at most 10,000.
        after: Where a scan goes on: ``next`` of the page before.
        alpha: Weight of meaning against words in ``hybrid``, from 0 to 1.
        filters: What hits must satisfy: a dictionary, or a condition like SQL's (infra/conditions).
        score_threshold: Least score of a hit, from 0 to 1.
        sort: Order of the hits, where it is not by score.
        facets: Columns whose values are counted over all that satisfies the filters.
        columns: What is returned of each hit; all that is kept if left out.
        vectors: Whether vectors are returned.
        rerank: Who ranks the hits anew.
        keys: Rows to fetch.
        vector: Searched for instead of the query's own: as long as the index says.
    """

    operation: Literal["fetch", "scan", "search"] = "search"
    mode: Literal["full_text", "hybrid", "vector"] = "vector"
    k: Annotated[int, Field(ge=1, le=MOST_HITS)] = 10
    offset: Annotated[int, Field(ge=0, le=MOST_HITS)] = 0
    after: str | None = None
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    filters: dict[str, Any] | str | None = None
    score_threshold: float | None = None
    sort: Annotated[tuple[Sort, ...], Field(max_length=8)] = ()
    facets: Annotated[tuple[Text, ...], Field(max_length=8)] = ()
    columns: tuple[Text, ...] | None = None
    vectors: bool = False
    rerank: Rerank | None = None
    keys: Annotated[tuple[Values, ...], Field(max_length=MOST_ROWS)] = ()
    vector: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Search:
        if self.k + self.offset > MOST_HITS:
            raise ValueError(f"k and offset reach beyond {MOST_HITS:,} hits: scan instead")
        if (self.operation == "fetch") != bool(self.keys):
            raise ValueError("keys are what fetch asks for, and nothing else does")
        return self


class Write(Shape):
    """How a direct-access index is written to.

    Attributes:
        operation: ``upsert`` rows whole, or ``delete`` them by their keys.
        rows: Rows: key columns, the columns of the text, and columns to keep; with ``vector``, it
            is taken instead of embedding the text.
        keys: Keys of the rows to delete.
    """

    operation: Literal["delete", "upsert"]
    rows: Annotated[tuple[Values, ...], Field(max_length=MOST_ROWS)] = ()
    keys: Annotated[tuple[Values, ...], Field(max_length=MOST_ROWS)] = ()

    @model_validator(mode="after")
    def _some(self) -> Write:
        given, other = self.rows, self.keys
        if self.operation == "delete":
            given, other = other, given
        if not given or other:
            raise ValueError("upsert takes rows, delete takes keys, and at least one of them")
        return self


class Access(Shape):
    """What of an index a caller may see.

    Attributes:
        where: Groups of conditions; a row is seen that satisfies one condition of each group. All
            rows where there is no group, none where a group is empty. Each condition is read by
            itself, so that none can undo another.
        masks: How columns are masked, by column: ``hash``, ``last4`` or ``null``.
    """

    where: tuple[tuple[str, ...], ...] = ()
    masks: dict[str, str] = Field(default_factory=dict)


class Hit(Shape):
    """A chunk that was found.

    Attributes:
        key: Values of the key columns.
        score: From 0 to 1, the higher the better; None where nothing was scored.
        text: The chunk.
        columns: What is kept beside.
        position: Which chunk of its row it is, from 0.
        chunks: How many its row has.
        source: Table that the row is of; None where callers wrote it.
        version: Which state of the row it is: grows with every change of it.
        committed_at: When that state was committed, in milliseconds since 1970.
        vector: The embedding, where it was asked for.
    """

    key: Values
    score: float | None = None
    text: str = ""
    columns: Values = Field(default_factory=dict)
    position: int = 0
    chunks: int = 1
    source: str | None = None
    version: str = ""
    committed_at: int | None = None
    vector: tuple[float, ...] | None = None


class Count(Shape):
    """How often a value of a column occurs."""

    value: Any
    count: int


class Found(Shape):
    """What an index answered.

    Attributes:
        hits: Best first, or in the order that was asked for.
        facets: Counts by column, the most frequent first.
        next: What a scan goes on after; None where it is at its end.
        generation: Of the index.
    """

    hits: tuple[Hit, ...] = ()
    facets: dict[str, tuple[Count, ...]] = Field(default_factory=dict)
    next: str | None = None
    generation: int = 1


class Failure(Shape):
    """A row that was not written, and why."""

    key: Values
    reason: str


class Written(Shape):
    """What came of a write.

    Attributes:
        status: Whether all rows, some, or none were written.
        written: How many were.
        failed: The others.
    """

    status: Literal["FAILURE", "PARTIAL", "SUCCESS"]
    written: int = 0
    failed: tuple[Failure, ...] = ()


def read(document: str | None, shape: type[S]) -> S:
    """Returns what a JSON text says, in a shape of these.

    Raises:
        FormInvalid: It is not in the shape; the message names the first place where it is not and
            quotes no value.
    """
    said = parsed(document or "")
    if not isinstance(said, dict):
        raise FormInvalid("a JSON object belongs here")
    try:
        return shape.model_validate(said)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(each)[:MOST_QUOTED] for each in first["loc"])
        wrong = first["msg"].removeprefix("Value error, ")
        raise FormInvalid(f"{place}: {wrong}" if place else wrong) from None
