"""Documents carried out: planned, shown, agreed to, and done all or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from catalog.operator import printing
from catalog.operator.asking import Registered


async def carried_out(
    catalog: Registered,
    documents: Sequence[dict[str, Any]],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Returns what came of documents, or of their plan.

    Args:
        catalog: Who is asked.
        documents: As plain data.
        dry_run: Whether to plan only.
        yes: Whether to ask nobody.
        as_json: Whether to show nothing.

    Raises:
        RequestRefused: The registrar said no.
        typer.Abort: The person said no.
    """
    planned = await catalog.ask("apply", documents=documents, dry_run=True)
    if not as_json:
        for line in printing.plan(planned["steps"]):
            printing.out().print(line)
    if dry_run or not planned["steps"]:
        return planned
    if not yes:
        typer.confirm(f"Make {len(planned['steps'])} changes?", abort=True, err=True)
    seen = {"base": planned["position"], "digest": planned["digest"]}
    return await catalog.ask("apply", documents=documents, **seen)


def show(result: dict[str, Any], *, as_json: bool) -> None:
    """Shows what came of documents."""
    if as_json:
        printing.show(result, as_json, printing.record(result))
    elif result["applied"] and result["steps"]:
        typer.echo(
            f"applied: {len(result['steps'])} changes, the catalog is at {result['position']}"
        )
