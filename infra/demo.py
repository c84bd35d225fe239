"""The demo: a question through the whole pipeline, and one that holds personal data.

Knows what is asked and what the tables must show of it; asking is the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import typer

from infra.stack.local import LocalStack, StackFailed, until
from schemas.events import Reason

ENDPOINT = "main.default.smollm2"
QUESTION = "In one sentence: what is an event log?"
# Its policy masks mail addresses; both are in the catalog's seed.
CAREFUL = "main.default.careful"
ADDRESS = "ada@example.com"
PERSONAL = f"Write one line of greeting to {ADDRESS}."
VISIBLE_S = 60.0
# Exit codes of a question that got a reply, if only a refusal.
ANSWERED = (0, 1)

# Runs a command of the command line; returns its exit code.
Types = Callable[[str, list[str]], int]

Row = Mapping[str, Any]


def show(stack: LocalStack, question: str, types: Types) -> None:
    """Asks, and shows what became of it.

    Raises:
        StackFailed: A question was not answered, or its row shows what it must not.
    """
    from infra import screen  # noqa: PLC0415 - pyarrow is only loaded where rows are shown

    row = _asked(stack, question, ENDPOINT, types)
    typer.secho("\nits row in the table inferences:", bold=True)
    screen.out.print(screen.record(row))
    row = _asked(stack, PERSONAL, CAREFUL, types)
    typer.secho("\nwhat the model was asked, and what the table has of it:", bold=True)
    for line in masked(row):
        typer.echo(line)


def masked(row: Row) -> Iterator[str]:
    """Yields what the table has of the question that holds personal data.

    Raises:
        StackFailed: The row holds it, too.
    """
    if row["reason"] == Reason.ENDPOINT_UNKNOWN:
        yield "    nothing: this catalog is older than the endpoint (tessera reset begins anew)"
        return
    if ADDRESS in json.dumps(dict(row), default=str):
        raise StackFailed(f"the row of request {row['request_id']} holds {ADDRESS}")
    yield f"    {json.loads(row['request'])['messages'][-1]['content']}"
    cost = "unknown" if row["cost"] is None else f"${row['cost'].normalize():f}"
    yield (
        f"cost: {cost} for {row['prompt_tokens']} + {row['completion_tokens']} tokens; "
        f"what is left: tessera limits operator {CAREFUL}"
    )


def _asked(stack: LocalStack, question: str, endpoint: str, types: Types) -> Row:
    """Asks and returns the row of it."""
    typer.secho(f"\nquestion to {endpoint}: {question}", bold=True)
    began = datetime.now(UTC)
    code = types("ask", ["--stream", "--endpoint", endpoint, question])
    row = _row(stack, endpoint, began) if code in ANSWERED else {"reason": ""}
    if code and row["reason"] != Reason.ENDPOINT_UNKNOWN:
        raise StackFailed(f"the question was not answered (exit code {code}); see the logs")
    return row


def _row(stack: LocalStack, endpoint: str, since: datetime) -> Row:
    """Returns the newest row of an endpoint since an instant, as soon as it is there."""
    from infra import lake  # noqa: PLC0415

    newest = (
        f"select * from inferences where endpoint = '{endpoint}' and "
        f"requested_at >= timestamp '{since:%Y-%m-%d %H:%M:%S}' order by requested_at desc limit 1"
    )
    found: list[Row] = []

    def visible() -> bool:
        try:
            found[:] = lake.query(stack.lake, newest).to_pylist()
        except lake.QueryInvalid:  # The table appears with its first event.
            return False
        return bool(found)

    until(visible, VISIBLE_S, lambda: f"no row of the request appeared in {stack.lake}")
    return found[0]
